package signature

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Call is what is signed of a call of the HTTP API.
type Call struct {
	Method string
	Path   string // with its slash
	Params map[string]string
	Body   []byte
}

// SignedQuery returns the query string of the call: its parameters, those of the authentication and the signature. It is
// good for 600 s before and after at. (HTTP API, "authentication".)
func (c Call) SignedQuery(key, secret string, at time.Time) string {
	params := maps.Clone(c.Params)
	if params == nil {
		params = map[string]string{}
	}
	params["auth_key"] = key
	params["auth_timestamp"] = strconv.FormatInt(at.Unix(), 10)
	params["auth_version"] = "1.0"
	if len(c.Body) > 0 {
		params["body_md5"] = BodyMD5(c.Body)
	}
	var plain, escaped []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		plain = append(plain, strings.ToLower(name)+"="+params[name])
		escaped = append(escaped, url.QueryEscape(name)+"="+url.QueryEscape(params[name]))
	}
	signed := Sign(secret, Request(c.Method, c.Path, strings.Join(plain, "&")))
	return strings.Join(escaped, "&") + "&auth_signature=" + signed
}
