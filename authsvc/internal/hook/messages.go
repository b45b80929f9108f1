package hook

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/carillon-rt/carillon/authsvc/internal/grant"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// Kind is what a hook is asked, as in the header Carillon-Hook of requests.
type Kind string

// Kinds. Their methods are those of Centrifugo's service CentrifugoProxy.
const (
	Connect    Kind = "connect"
	Refresh    Kind = "refresh"
	Subscribe  Kind = "subscribe"
	SubRefresh Kind = "sub_refresh"
	Publish    Kind = "publish"
	RPC        Kind = "rpc"
	CacheEmpty Kind = "cache_empty"
)

// method is the full name of the kind's gRPC method.
func (k Kind) method() string {
	const service = "/centrifugal.centrifugo.proxy.CentrifugoProxy/"
	switch k {
	case Connect:
		return service + "Connect"
	case Refresh:
		return service + "Refresh"
	case Subscribe:
		return service + "Subscribe"
	case SubRefresh:
		return service + "SubRefresh"
	case Publish:
		return service + "Publish"
	case CacheEmpty:
		return service + "NotifyCacheEmpty"
	}
	return service + "RPC"
}

// label is the metadata "type" of gRPC calls, by which RoadRunner's workers
// tell them apart.
func (k Kind) label() string {
	if k == CacheEmpty {
		return "notifycacheempty"
	}
	return string(k)
}

// The messages have the names and numbers of Centrifugo's proxy protocol: one
// struct is both the JSON and, by the tags pb, the protobuf message. Of each
// pair X and B64X one is set; in protobuf, X is bytes that need no be JSON.

// From begins every request: who it is about.
type From struct {
	Client    string `json:"client" pb:"1"`
	Transport string `json:"transport" pb:"2"`
	Protocol  string `json:"protocol" pb:"3"`
	Encoding  string `json:"encoding" pb:"4"`
}

func (f *From) from() *From { return f }

// Request is one of the XRequest structs.
type Request interface{ from() *From }

// ConnectRequest asks who connects without a token.
type ConnectRequest struct {
	From
	Data     json.RawMessage `json:"data,omitempty" pb:"10"`
	B64Data  string          `json:"b64data,omitempty" pb:"11"`
	Name     string          `json:"name,omitempty" pb:"12"`
	Version  string          `json:"version,omitempty" pb:"13"`
	Channels []string        `json:"channels,omitempty" pb:"14"`
}

// RefreshRequest asks whether a connection may live on.
type RefreshRequest struct {
	From
	User string          `json:"user" pb:"10"`
	Meta json.RawMessage `json:"meta,omitempty" pb:"11"`
}

// SubscribeRequest asks whether a connection may subscribe.
type SubscribeRequest struct {
	From
	User    string          `json:"user" pb:"10"`
	Channel string          `json:"channel" pb:"11"`
	Token   string          `json:"token,omitempty" pb:"12"`
	Meta    json.RawMessage `json:"meta,omitempty" pb:"13"`
	Data    json.RawMessage `json:"data,omitempty" pb:"14"`
	B64Data string          `json:"b64data,omitempty" pb:"15"`
}

// SubRefreshRequest asks whether a subscription may live on.
type SubRefreshRequest struct {
	From
	User    string          `json:"user" pb:"10"`
	Channel string          `json:"channel" pb:"11"`
	Meta    json.RawMessage `json:"meta,omitempty" pb:"12"`
}

// PublishRequest asks whether a connection may publish.
type PublishRequest struct {
	From
	User    string          `json:"user" pb:"10"`
	Channel string          `json:"channel" pb:"11"`
	Data    json.RawMessage `json:"data,omitempty" pb:"12"`
	B64Data string          `json:"b64data,omitempty" pb:"13"`
	Meta    json.RawMessage `json:"meta,omitempty" pb:"14"`
}

// RPCRequest is a client's call.
type RPCRequest struct {
	From
	User    string          `json:"user" pb:"10"`
	Method  string          `json:"method" pb:"11"`
	Data    json.RawMessage `json:"data,omitempty" pb:"12"`
	B64Data string          `json:"b64data,omitempty" pb:"13"`
	Meta    json.RawMessage `json:"meta,omitempty" pb:"14"`
}

// CacheEmptyRequest tells that a channel has no last value. It is about no
// connection.
type CacheEmptyRequest struct {
	Channel string `json:"channel" pb:"1"`
}

func (*CacheEmptyRequest) from() *From { return &From{} }

// Response is what a hook answers. If several fields are set the disconnect
// counts before the error, and the error before the result.
type Response[T any] struct {
	Result     *T          `json:"result,omitempty" pb:"1"`
	Error      *Error      `json:"error,omitempty" pb:"2"`
	Disconnect *Disconnect `json:"disconnect,omitempty" pb:"3"`
}

// Error is the application's refusal.
type Error struct {
	Code      uint32 `json:"code" pb:"1"`
	Message   string `json:"message,omitempty" pb:"2"`
	Temporary bool   `json:"temporary,omitempty" pb:"3"`
}

// Disconnect ends the connection.
type Disconnect struct {
	Code   uint32 `json:"code" pb:"1"`
	Reason string `json:"reason,omitempty" pb:"2"`
}

// Verdict is the refusal in the answer, nil if there is none.
func (r *Response[T]) Verdict() *authz.Verdict {
	switch {
	case r.Disconnect != nil:
		return &authz.Verdict{Disconnect: true, Code: r.Disconnect.Code, Text: r.Disconnect.Reason}
	case r.Error != nil:
		return &authz.Verdict{Code: r.Error.Code, Text: r.Error.Message, Temporary: r.Error.Temporary}
	}
	return nil
}

func (r *Response[T]) goodUntil() int64 {
	if g, ok := any(r.Result).(interface{ goodUntil() int64 }); ok && r.Result != nil {
		return g.goodUntil()
	}
	return 0
}

// ConnectResult says who connected.
type ConnectResult struct {
	User     string                 `json:"user,omitempty" pb:"1"`
	ExpireAt int64                  `json:"expire_at,omitempty" pb:"2"`
	Info     json.RawMessage        `json:"info,omitempty" pb:"3"`
	B64Info  string                 `json:"b64info,omitempty" pb:"4"`
	Data     json.RawMessage        `json:"data,omitempty" pb:"5"`
	B64Data  string                 `json:"b64data,omitempty" pb:"6"`
	Channels []string               `json:"channels,omitempty" pb:"7"`
	Subs     map[string]*SubOptions `json:"subs,omitempty" pb:"8"`
	Meta     json.RawMessage        `json:"meta,omitempty" pb:"9"`
}

func (r *ConnectResult) goodUntil() int64 {
	first := max(r.ExpireAt, 0)
	for _, sub := range r.Subs {
		if sub != nil && sub.ExpireAt > 0 && (first == 0 || sub.ExpireAt < first) {
			first = sub.ExpireAt
		}
	}
	return first
}

// Granting is what a subscription is given.
type Granting struct {
	ExpireAt int64           `json:"expire_at,omitempty" pb:"1"`
	Info     json.RawMessage `json:"info,omitempty" pb:"2"`
	B64Info  string          `json:"b64info,omitempty" pb:"3"`
	Data     json.RawMessage `json:"data,omitempty" pb:"4"`
	B64Data  string          `json:"b64data,omitempty" pb:"5"`
	Override *grant.Override `json:"override,omitempty" pb:"6"`
}

func (g *Granting) goodUntil() int64 { return g.ExpireAt }

// SubOptions are those of one subscription of a connect result. The filter is
// known so that it is not overlooked: it is not supported, and without it the
// client would get more than it should.
type SubOptions struct {
	Granting
	ServerTagsFilter json.RawMessage `json:"server_tags_filter,omitempty" pb:"7"`
}

// SubscribeResult says what a subscription is given.
type SubscribeResult struct {
	Granting
	// Allow lists what the policy may not: pub, hst and prs.
	Allow            []string        `json:"allow,omitempty" pb:"7"`
	ServerTagsFilter json.RawMessage `json:"server_tags_filter,omitempty" pb:"8"`
}

// RefreshResult says until when a connection lives.
type RefreshResult struct {
	Expired  bool            `json:"expired,omitempty" pb:"1"`
	ExpireAt int64           `json:"expire_at,omitempty" pb:"2"`
	Info     json.RawMessage `json:"info,omitempty" pb:"3"`
	B64Info  string          `json:"b64info,omitempty" pb:"4"`
	Meta     json.RawMessage `json:"meta,omitempty" pb:"5"`
}

// SubRefreshResult says until when a subscription lives.
type SubRefreshResult struct {
	Expired  bool            `json:"expired,omitempty" pb:"1"`
	ExpireAt int64           `json:"expire_at,omitempty" pb:"2"`
	Info     json.RawMessage `json:"info,omitempty" pb:"3"`
	B64Info  string          `json:"b64info,omitempty" pb:"4"`
}

// PublishResult may change what is published.
type PublishResult struct {
	Data           json.RawMessage   `json:"data,omitempty" pb:"1"`
	B64Data        string            `json:"b64data,omitempty" pb:"2"`
	SkipHistory    bool              `json:"skip_history,omitempty" pb:"3"`
	Tags           map[string]string `json:"tags,omitempty" pb:"4"`
	IdempotencyKey string            `json:"idempotency_key,omitempty" pb:"5"`
	Delta          bool              `json:"delta,omitempty" pb:"6"`
}

// RPCResult answers a call.
type RPCResult struct {
	Data    json.RawMessage `json:"data,omitempty" pb:"1"`
	B64Data string          `json:"b64data,omitempty" pb:"2"`
}

// CacheEmptyResult says whether the channel has a value now.
type CacheEmptyResult struct {
	Populated bool `json:"populated,omitempty" pb:"1"`
}

// Encode gives a client's data as one of the twins: as it is, or in base64 when
// the hook wants it so, or when it is not JSON and could not travel otherwise.
func Encode(h *app.Hook, data []byte) (raw json.RawMessage, b64 string) {
	switch bytes := strings.HasPrefix(h.URL, "grpc"); {
	case len(data) == 0:
		return nil, ""
	case h.Binary || !bytes && !json.Valid(data):
		return nil, base64.StdEncoding.EncodeToString(data)
	}
	return data, ""
}

// NewFrom says who a question is about. The encoding is that of the question's
// data, the protocol of Centrifugo's clients the way in which they write it.
func NewFrom(h *app.Hook, c *authz.Client, b64 string) From {
	f := From{Client: c.ID, Transport: c.Transport, Protocol: c.Protocol, Encoding: "json"}
	if h.Binary || b64 != "" {
		f.Encoding = "binary"
	}
	if c.Protocol == "centrifugo" {
		f.Protocol = map[bool]string{true: "protobuf", false: "json"}[c.Encoding == "binary"]
	}
	return f
}
