package badinput

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

const requestsAnswered = "carillon_gateway_requests_answered_total"

// request is a whole HTTP request.
func request(method, target, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
}

// listening is the target of a GET for server-sent events.
func listening(connect string) string {
	return "/connection/uni_sse?app=1008&cf_connect=" + url.QueryEscape(connect)
}

// withToken is a ConnectRequest with a token that the secret signs.
func withToken(claims, secret string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return fmt.Sprintf(`{"token":%q}`, signed+"."+encode(mac.Sum(nil)))
}

// disconnected is the push that ends a unidirectional connection.
func disconnected(code int, reason string) string {
	again := ""
	if code < 3500 {
		again = `,"reconnect":true`
	}
	return fmt.Sprintf(`{"disconnect":{"code":%d,"reason":%q%s}}`, code, reason, again)
}

func TestUnidirectionalDoor(t *testing.T) {
	w := start(t)
	w.unharmed(t)
	t.Run("request", w.badUniRequests)
	t.Run("connect", w.badConnects)
	t.Run("message", w.badUniMessages)
}

// badUniRequests are answered before they are anybody's.
func (w *world) badUniRequests(t *testing.T) {
	const (
		stream   = "/connection/uni_http_stream"
		notJSON  = "the ConnectRequest is malformed: not JSON: "
		expected = `a ConnectRequest is expected, such as {"token":"..."}, or {} without a token` + "\n"
	)
	for _, c := range []struct {
		name, request, metric string
		status                int
		body                  string
	}{
		{"no body", request("POST", stream, ""), requestsAnswered, 400, expected},
		{"blank", request("POST", stream, " \n"), requestsAnswered, 400, expected},
		{"half of JSON", request("POST", stream, `{"token":`), requestsAnswered, 400, notJSON + "unexpected end of JSON input\n"},
		{"a command", request("POST", "/connection/uni_sse", `[{"id":1,"connect":{}}]`), requestsAnswered, 400, "the ConnectRequest is malformed: a JSON object is expected\n"},
		{"a token that is a number", request("POST", stream, `{"token":5}`), requestsAnswered, 400, "the ConnectRequest is malformed: \"token\" is not a string\n"},
		{"a place before the first", request("POST", stream, `{"subs":{"a":{"offset":-1}}}`), requestsAnswered, 400, "the ConnectRequest is malformed: \"offset\" is not a whole number up to 18446744073709551614\n"},
		{"malformed in the URL", request("GET", listening("nonsense"), ""), requestsAnswered, 400, notJSON + "invalid character 'o' in literal null (expecting 'u')\n"},
		{"GET of a stream", request("GET", stream, ""), requestsAnswered, 405, "the method is POST\n"},
		{"PUT of events", request("PUT", "/connection/uni_sse", "{}"), requestsAnswered, 405, "the method is GET or POST\n"},
		{"too large", request("POST", stream, strings.Repeat(" ", 64<<10)+"{}"), requestsRefused, 413, "request body is larger than 65536 bytes\n"},
		{"another path", request("POST", "/connection/uni_grpc", "{}"), apiRequests(404), 404, `{"error":"there is no /connection/uni_grpc","code":404}`},
		{"no upgrade", request("GET", "/connection/uni_websocket", ""), requestsRefused, 400, "a WebSocket handshake needs Upgrade: websocket\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				s := w.connect(t, w.gateway())
				s.write([]byte(c.request))
				s.answered(c.status, c.body)
			})
		})
	}
}

// badConnects are told by the push that ends the connection, and by a close
// frame where there is one.
func (w *world) badConnects(t *testing.T) {
	for _, c := range []struct {
		name, request, counted string
		code                   int
		reason                 string
	}{
		{"no token", "{}", "anonymous", 3501, "bad request: no token, and anonymous connections are not allowed"},
		{"a token that is none", `{"token":"nonsense"}`, "bad_token", 3500, "invalid token"},
		{"a token that nobody signed", withToken(`{"sub":"42"}`, "guess"), "bad_token", 3500, "invalid token"},
		{"a subscription token", withToken(`{"sub":"42","channel":"a"}`, "token-secret"), "bad_token", 3500, "invalid token"},
		{"a token that is over", withToken(`{"sub":"42","exp":1}`, "token-secret"), "token_expired", 3005, "connection expired: the token has expired: fetch a new one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, closes(c.counted), 1, func() {
				s := w.connect(t, w.gateway())
				s.write([]byte(request("GET", listening(c.request), "")))
				s.answered(200, "\r\ndata: "+disconnected(c.code, c.reason)+"\n\n")
			})
			w.counts(t, closes(c.counted), 1, func() {
				s := w.open(t, "/connection/uni_websocket?app=1008", "")
				s.send(c.request)
				s.gets(disconnected(c.code, c.reason))
				s.closed(c.code, c.reason)
			})
		})
	}
	t.Run("no such app", func(t *testing.T) {
		w.counts(t, closes("app_unknown"), 1, func() {
			s := w.connect(t, w.gateway())
			s.write([]byte(request("POST", "/connection/uni_http_stream?app=nope", "{}")))
			s.answered(200, disconnected(3501, `bad request: there is no app "nope"`)+"\n")
		})
	})
}

// badUniMessages come by WebSockets, where a client can say more than it may.
func (w *world) badUniMessages(t *testing.T) {
	const malformed = "bad request: the ConnectRequest is malformed: "
	open := func(t *testing.T) *socket { return w.open(t, "/connection/uni_websocket?app=1008", "") }
	t.Run("not JSON", func(t *testing.T) {
		w.counts(t, closes("malformed"), 1, func() {
			s := open(t)
			s.send("{")
			s.gets(disconnected(3501, malformed+"not JSON: unexpected end of JSON input"))
			s.closed(3501, malformed+"not JSON: unexpected end of JSON input")
		})
	})
	t.Run("binary", func(t *testing.T) {
		w.counts(t, closes("malformed"), 1, func() {
			s := open(t)
			s.write(frame(0x82, []byte("{}")))
			s.gets(disconnected(3501, "bad request"))
			s.closed(3501, "bad request")
		})
	})
	t.Run("too large", func(t *testing.T) {
		w.counts(t, ended("too_big"), 1, func() {
			s := open(t)
			s.write(append(header(0x81, 0x80, 64<<10+1), 0, 0, 0, 0))
			s.closed(1009, "message too big: at most 65536 bytes are allowed")
		})
	})
	s := open(t)
	s.send(withToken(`{"sub":"42"}`, "token-secret"))
	if first := s.text(); !strings.HasPrefix(first, `{"connect":{`) {
		t.Fatalf("connected with %s", first)
	}
	t.Run("a second message", func(t *testing.T) {
		w.counts(t, refused("ignored"), 2, func() {
			s.send(`{"id":2,"subscribe":{"channel":"bystander"}}`)
			s.send("{}")
		})
	})
	t.Run("too many", func(t *testing.T) {
		w.counts(t, closes("flood"), 1, func() {
			for range 60 { // more than 5 a second over 10 seconds
				s.write(frame(0x81, []byte("x")))
			}
			s.gets(disconnected(3013, "too many requests"))
			s.closed(3013, "too many requests")
		})
	})
}
