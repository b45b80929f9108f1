package badinput

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/tests/env"
)

func apiRequests(status int) string {
	return fmt.Sprintf("carillon_api_requests_total{code=\"%d\",dialect=\"pusher\"}", status)
}

func TestHTTPDoor(t *testing.T) {
	w := start(t)
	t.Run("authentication", w.badAuthentication)
	t.Run("body", w.badBodies)
	t.Run("read", w.badReads)
	t.Run("wire", func(t *testing.T) { w.badWire(t, w.cluster.API.API(), "carillon_api_http_unread_total") })
	t.Run("wire of the public port", func(t *testing.T) { w.badWire(t, w.gateway(), "carillon_gateway_http_unread_total") })
}

// call is one request. Zero fields are right: a good trigger of the app.
type call struct {
	method, path, body string
	key, secret        string
	age                time.Duration
	query              map[string]string // added before signing; "" removes
	after              func(query string) string
}

const (
	eventsPath = "/apps/" + env.AppID + "/events"
	goodEvent  = `{"name":"e","data":"d","channels":["a"]}`
)

// line is the request's target and what was signed.
func (c *call) line() (target, toSign string) {
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.path == "" {
		c.path = eventsPath
	}
	if c.key == "" {
		c.key, c.secret = env.Key, env.Secret
	}
	q := map[string]string{
		"auth_key": c.key, "auth_version": "1.0",
		"auth_timestamp": strconv.FormatInt(time.Now().Add(-c.age).Unix(), 10),
	}
	if c.body != "" {
		q["body_md5"] = signature.BodyMD5([]byte(c.body))
	}
	for k, v := range c.query {
		if q[k] = v; v == "" {
			delete(q, k)
		}
	}
	var pairs []string
	for k, v := range q {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	query := strings.Join(pairs, "&")
	toSign = signature.Request(c.method, c.path, query)
	query += "&auth_signature=" + signature.Sign(c.secret, toSign)
	if c.after != nil {
		query = c.after(query)
	}
	return c.path + "?" + query, toSign
}

// refuses makes the call and compares the answer's error, in which TO_SIGN
// stands for the string to sign and NUMBER for one.
func (w *world) refuses(t *testing.T, c call, status int, told string) {
	t.Helper()
	if c.method == "" && c.body == "" {
		c.body = goodEvent
	}
	target, toSign := c.line()
	w.counts(t, apiRequests(status), 1, func() {
		req, err := http.NewRequestWithContext(t.Context(), c.method, w.api.Base+target, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.api.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		told = strings.ReplaceAll(told, "TO_SIGN", fmt.Sprintf("%q", toSign))
		want := `{"error":` + quoted(told) + `,"code":` + strconv.Itoa(status) + `}`
		same := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), "NUMBER", `\d+`) + "$")
		if res.StatusCode != status || !same.Match(body) {
			t.Fatalf("answered %d %s\nwant     %d %s", res.StatusCode, body, status, want)
		}
		if kind := res.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("Content-Type is %q", kind)
		}
		if status == http.StatusMethodNotAllowed && res.Header.Get("Allow") == "" {
			t.Error("405 without Allow")
		}
	})
}

func (w *world) badAuthentication(t *testing.T) {
	without := func(name string) func(string) string {
		return func(q string) string { return regexp.MustCompile(`&?`+name+`=[^&]*`).ReplaceAllString(q, "") }
	}
	wrong := `auth_signature is wrong: want the hex HMAC-SHA256, with the secret of key "` + env.Key + `", of TO_SIGN`
	for _, c := range []struct {
		name   string
		call   call
		status int
		told   string
	}{
		{"unknown app", call{path: "/apps/9999/events"}, 404, `there is no app "9999"`},
		{"disabled app", call{path: "/apps/1002/events", key: "disabled-key", secret: "s"}, 403, "app 1002 is disabled"},
		{"no authentication", call{after: func(string) string { return "" }}, 401, `auth_version is "", want 1.0`},
		{"another version", call{query: map[string]string{"auth_version": "2.0"}}, 401, `auth_version is "2.0", want 1.0`},
		{"no key", call{query: map[string]string{"auth_key": ""}}, 401, "auth_key is missing"},
		{"unknown key", call{key: "nobody"}, 401, `auth_key "nobody" is not an enabled key of app 1001`},
		{"another app's key", call{key: "wide-key", secret: "s"}, 401, `auth_key "wide-key" is not an enabled key of app 1001`},
		{"disabled key", call{path: "/apps/1006/events", key: "dead-key", secret: "s"}, 401, `auth_key "dead-key" is not an enabled key of app 1006`},
		{"wrong secret", call{key: env.Key, secret: "wrong"}, 401, wrong},
		{"signature cut", call{after: func(q string) string { return q[:len(q)-1] }}, 401, wrong},
		{"no signature", call{after: without("auth_signature")}, 401, "auth_signature is missing"},
		{"no timestamp", call{query: map[string]string{"auth_timestamp": ""}}, 401, `auth_timestamp is "", want Unix seconds`},
		{"timestamp that is no number", call{query: map[string]string{"auth_timestamp": "now"}}, 401, `auth_timestamp is "now", want Unix seconds`},
		{"an old request", call{age: 700 * time.Second}, 401, "auth_timestamp is NUMBER, more than 600 s away from the server's time NUMBER"},
		{"a request of tomorrow", call{age: -24 * time.Hour}, 401, "auth_timestamp is NUMBER, more than 600 s away from the server's time NUMBER"},
		{"no body_md5", call{query: map[string]string{"body_md5": ""}}, 401, "body_md5 is missing, it is required with a body"},
		{"body_md5 of another body", call{query: map[string]string{"body_md5": "00"}}, 401, `body_md5 is "00", but the MD5 of the 40 bytes of the body is ` + signature.BodyMD5([]byte(goodEvent))},
		{"too many parameters", call{after: func(q string) string { return q + manyParams(64) }}, 400, "the query has more than 64 parameters"},
	} {
		t.Run(c.name, func(t *testing.T) { w.refuses(t, c.call, c.status, c.told) })
	}
}

func manyParams(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&p%d=", i)
	}
	return b.String()
}

// trigger is a good event with some members changed.
func trigger(members string) call {
	return call{body: `{"name":"e","data":"d","channels":["a"],` + members + `}`}
}

func (w *world) badBodies(t *testing.T) {
	const (
		notObject = "an event must be a JSON object with name, data and channel or channels"
		noChannel = "no channel is given: set channels to an array of names, or channel to one"
		chars     = `channel "a b": channel name holds " "; allowed are letters, digits and _ - = @ , . ;`
	)
	hundred := strings.Repeat(`"a",`, 100) + `"a"`
	long := strings.Repeat("x", 201)
	batch := func(items string) call { return call{path: "/apps/1001/batch_events", body: `{"batch":` + items + `}`} }
	for _, c := range []struct {
		name   string
		call   call
		status int
		told   string
	}{
		{"not JSON", call{body: `{"name":`}, 400, "the body is not valid JSON"},
		{"two documents", call{body: goodEvent + goodEvent}, 400, "the body is not valid JSON"},
		{"too deep", call{body: strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)}, 400, "the body is not valid JSON"},
		{"not UTF-8", call{body: "{\"name\":\"\xff\"}"}, 400, "the body is not valid UTF-8"},
		{"array", call{body: `[]`}, 400, notObject},
		{"name that is a number", trigger(`"name":1`), 400, "name must be a string"},
		{"channels that is a string", trigger(`"channels":"a"`), 400, "channels must be an array of strings"},
		{"channels with a number", trigger(`"channels":[1]`), 400, "channels must be an array of strings"},
		{"socket_id that is a number", trigger(`"socket_id":1.2`), 400, "socket_id must be a string"},
		{"no data", call{body: `{"name":"e","channels":["a"]}`}, 400, "data is missing"},
		{"no name", call{body: `{"data":"d","channels":["a"]}`}, 400, "event name is missing"},
		{"no channel", trigger(`"channels":[]`), 400, noChannel},
		{"101 channels", trigger(`"channels":[` + hundred + `]`), 400, "101 channels are given, at most 100 are allowed"},
		{"data too large", trigger(`"data":"` + strings.Repeat("x", 10<<10+1) + `"`), 413, `data of event "e" has 10241 bytes, at most 10240 are allowed`},
		{"name too long", trigger(`"name":"` + long + `"`), 400, "event name has 201 bytes, at most 200 are allowed"},
		{"channel name too long", trigger(`"channels":["` + long + `"]`), 400, `channel "` + long + `": channel name has 201 characters, at most 200 are allowed`},
		{"bad channel name", trigger(`"channels":["a b"]`), 400, chars},
		{"bad socket_id", trigger(`"socket_id":"1-2"`), 400, `socket_id is "1-2", want two numbers such as 123.456`},
		{"several encrypted channels", trigger(`"channels":["private-encrypted-a","b"]`), 400, `channel "private-encrypted-a" is encrypted: an event for it can't go to other channels too, each has its own key`},
		{"reserved name", trigger(`"name":"pusher:error"`), 400, `event name "pusher:error" is reserved: it must not begin with pusher: or pusher_internal:`},
		{"internal name", trigger(`"name":"pusher_internal:member_added"`), 400, `event name "pusher_internal:member_added" is reserved: it must not begin with pusher: or pusher_internal:`},
		{"idempotency key too long", trigger(`"idempotency_key":"` + strings.Repeat("k", 129) + `"`), 400, "idempotency key has 129 bytes, at most 128 are allowed"},
		{"batch that is no array", batch(`{}`), 400, "batch must be an array of events"},
		{"empty batch", batch(`[]`), 400, "batch is empty"},
		{"11 events in a batch", batch(`[` + strings.Repeat(goodEvent+",", 10) + goodEvent + `]`), 400, "batch has more than 10 events"},
		{"two channels in a batch", batch(`[{"name":"e","data":"d","channels":["a","b"]}]`), 400, "batch[0]: an event of a batch goes to one channel, set channel"},
		{"bad second event", batch(`[` + goodEvent + `,{"name":"e","channel":"a"}]`), 400, "batch[1]: data is missing"},
		{"old call without a body", call{path: "/apps/1001/channels/a/events", query: map[string]string{"name": "e"}, method: "POST"}, 400, "the body is empty, it is the data of the event"},
		{"terminate with an array", call{path: "/apps/1001/users/7/terminate_connections", body: "[]"}, 400, "the body must be {} or empty"},
		{"terminate a user with a long id", call{path: "/apps/1001/users/" + long + "/terminate_connections", body: "{}"}, 400, `user id "` + long + `" must have 1 to 128 bytes of UTF-8`},
	} {
		t.Run(c.name, func(t *testing.T) { w.refuses(t, c.call, c.status, c.told) })
	}
}

func (w *world) badReads(t *testing.T) {
	get := func(path string, query ...string) call {
		c := call{method: http.MethodGet, path: path, query: map[string]string{}}
		for i := 0; i < len(query); i += 2 {
			c.query[query[i]] = query[i+1]
		}
		return c
	}
	for _, c := range []struct {
		name   string
		call   call
		status int
		told   string
	}{
		{"wrong method", get(eventsPath), 405, "method GET is not allowed here, want POST"},
		{"another wrong method", call{method: http.MethodDelete, path: "/apps/1001/channels"}, 405, "method DELETE is not allowed here, want GET"},
		{"unknown route", get("/apps/1001/nonsense"), 404, "there is no /apps/1001/nonsense"},
		{"nothing", get("/"), 404, "there is no /"},
		{"deep path", get("/apps/1001/channels/a/users/b"), 404, "there is no /apps/1001/channels/a/users/b"},
		{"user_count of all channels", get("/apps/1001/channels", "info", "user_count"), 400, "user_count needs filter_by_prefix to begin with presence-, other channels have no users"},
		{"user_count of a public channel", get("/apps/1001/channels/a", "info", "user_count"), 400, `user_count is for presence channels, "a" is not one`},
		{"users of a public channel", get("/apps/1001/channels/a/users"), 400, `users are known of presence channels, "a" is not one`},
		{"bad channel name", get("/apps/1001/channels/a*"), 400, `channel "a*": channel name holds "*"; allowed are letters, digits and _ - = @ , . ;`},
		{"body_md5 of nothing", get("/apps/1001/channels", "body_md5", "00"), 401, `body_md5 is "00", but the MD5 of the 0 bytes of the body is d41d8cd98f00b204e9800998ecf8427e`},
	} {
		t.Run(c.name, func(t *testing.T) { w.refuses(t, c.call, c.status, c.told) })
	}
}

// badWire is what is wrong below the calls, at one of the ports that serve
// them. unread counts what net/http refuses by itself there.
func (w *world) badWire(t *testing.T, addr, unread string) {
	const up = "GET /up HTTP/1.1\r\nHost: a\r\n\r\n"
	request := func(headers, body string) string {
		target, _ := (&call{body: goodEvent}).line()
		return "POST " + target + " HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n" + body
	}
	type answer struct {
		status int
		body   string
	}
	ofNetHTTP := func(status int, text string) answer { return answer{status, fmt.Sprintf("%d %s", status, text)} }
	bad := ofNetHTTP(400, "Bad Request")
	api := func(status int, told string) answer {
		return answer{status, `{"error":` + quoted(told) + `,"code":` + strconv.Itoa(status) + `}`}
	}
	chunk := strings.Repeat("x", bodyMax+1)
	for _, c := range []struct {
		name, send, metric string
		then               string // what becomes of the connection: "", "half" ends the client's side first, "stays"
		want               []answer
	}{
		{"body that does not come", request("Content-Length: 40\r\n", `{"n`), apiRequests(408), "", []answer{api(408, "the body did not arrive in time: 3 of 40 bytes came")}},
		{"chunks that do not come", request("Transfer-Encoding: chunked\r\n", "3\r\n{\"n\r\n"), apiRequests(408), "", []answer{api(408, "the body did not arrive in time: 3 bytes came")}},
		{"body that ends early", request("Content-Length: 40\r\n", `{"n`), apiRequests(400), "half", []answer{api(400, "the body can't be read beyond 3 of 40 bytes: unexpected EOF")}},
		{"bad chunk", request("Transfer-Encoding: chunked\r\n", "zz\r\n"), apiRequests(400), "", []answer{api(400, "the body can't be read beyond 0 bytes: invalid byte in chunk length")}},
		{"too large in chunks", request("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(chunk), chunk)), apiRequests(413), "stays", []answer{api(413, fmt.Sprintf("the body has more than %d bytes", bodyMax))}},
		{"huge Content-Length", request("Content-Length: 9000000000000000000\r\n", ""), apiRequests(413), "", []answer{api(413, fmt.Sprintf("the body has 9000000000000000000 bytes, at most %d are allowed", bodyMax))}},
		{"garbage behind a request", up + "\x00\x01garbage\r\n\r\n", unread, "", []answer{{200, "{}"}, bad}},
		{"half a request behind one", up + "GET /u", unread, "", []answer{{200, "{}"}, bad}},
		{"Content-Length that is no number", "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", unread, "", []answer{bad}},
		{"two Content-Lengths", "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", unread, "", []answer{bad}},
		{"unknown Transfer-Encoding", "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13\r\n\r\n", unread, "", []answer{{501, "Unsupported transfer encoding"}}},
		{"no Host", "GET /up HTTP/1.1\r\n\r\n", unread, "", []answer{{400, "400 Bad Request: missing required Host header"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				s := w.connect(t, addr)
				s.write([]byte(c.send))
				if c.then == "half" {
					if err := s.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				for _, a := range c.want {
					s.answered(a.status, a.body)
				}
				if c.then == "stays" {
					s.write([]byte(up))
					s.answered(200, "{}")
					return
				}
				s.ends()
			})
		})
	}
}
