package badinput

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/tests/env"
)

// Metrics of the gateway, as they are exported.
func closes(reason string) string {
	return fmt.Sprintf("carillon_gateway_closes_total{reason=%q}", reason)
}

func refused(reason string) string {
	return fmt.Sprintf("carillon_gateway_refused_total{reason=%q}", reason)
}

func ended(reason string) string {
	return fmt.Sprintf("carillon_gateway_connections_ended_total{reason=%q}", reason)
}

func decided(endpoint, reason string) string {
	return fmt.Sprintf("carillon_authsvc_decisions_total{endpoint=%q,reason=%q}", endpoint, reason)
}

const (
	requestsRefused = "carillon_gateway_requests_refused_total"
	headTimeouts    = "carillon_gateway_head_timeouts_total"
	goodPath        = "/app/" + env.Key + "?protocol=7"
	notAMessage     = "Not a message of the protocol: a JSON object with an event is expected"
)

func TestWebSocketDoor(t *testing.T) {
	w := start(t)
	w.unharmed(t)
	t.Run("handshake", w.handshakes)
	t.Run("refusal", w.refusals)
	t.Run("frame", w.badFrames)
	t.Run("message", w.badMessages)
	t.Run("subscription", w.badSubscriptions)
	t.Run("resume", w.badResumes)
	t.Run("sign-in", w.badSignIns)
	t.Run("client event", w.badClientEvents)
	t.Run("too much", w.tooMuch)
}

// handshakes are requests that never become a connection.
func (w *world) handshakes(t *testing.T) {
	good := upgrade(goodPath, "")
	for _, c := range []struct {
		name, request, metric string
		status                int
		body                  string
	}{
		{"wrong path", upgrade("/nope?protocol=7", ""), apiRequests(404), 404, `{"error":"there is no /nope","code":404}`},
		{"no upgrade", strings.Replace(good, "Upgrade: websocket\r\n", "", 1), requestsRefused, 400, "a WebSocket handshake needs Upgrade: websocket\n"},
		{"old version", strings.Replace(good, "Version: 13", "Version: 8", 1), requestsRefused, 426, "Sec-WebSocket-Version must be 13\n"},
		{"bad key", strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "x", 1), requestsRefused, 400, "Sec-WebSocket-Key must be 16 bytes in base64\n"},
		{"head too large", upgrade(goodPath, "X: "+strings.Repeat("x", 16<<10)+"\r\n"), requestsRefused, 431, "request head is larger than 16 KiB\n"},
		{"too many headers", upgrade(goodPath, strings.Repeat("X: y\r\n", 100)), requestsRefused, 431, "request head has more than 100 header fields\n"},
		{"not HTTP", "\x16\x03\x01 hello\r\n\r\n", requestsRefused, 400, "request line is not METHOD SP target SP HTTP/1.1\n"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", requestsRefused, 505, "HTTP version is neither 1.0 nor 1.1\n"},
		{"half a head, then nothing", good[:60], headTimeouts, 408, "the request head did not arrive in time\n"},
		{"a TLS hello on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", headTimeouts, 408, "the request head did not arrive in time\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				s := w.connect(t, w.gateway())
				s.write([]byte(c.request))
				s.answered(c.status, c.body)
			})
		})
	}
	t.Run("nothing at all", func(t *testing.T) {
		w.counts(t, headTimeouts, 1, func() { w.connect(t, w.gateway()).ends() })
	})
}

// refusals are connections that are told why they can't be.
func (w *world) refusals(t *testing.T) {
	const (
		unknown  = "Application does not exist: check the app key"
		disabled = "Application or its key is disabled"
		badText  = "Invalid version string: protocol must be an integer, such as protocol=7"
		oldText  = "Unsupported protocol version: 4 to 7 are supported"
	)
	for _, c := range []struct {
		name, path, header, reason string
		code                       int
		text                       string
	}{
		{"unknown app", "/app/nobody?protocol=7", "", "app_unknown", 4001, unknown},
		{"no app", "/app/?protocol=7", "", "app_unknown", 4001, unknown},
		{"key with odd bytes", "/app/%00%ff?protocol=7", "", "app_unknown", 4001, unknown},
		{"disabled app", "/app/disabled-key?protocol=7", "", "app_disabled", 4003, disabled},
		{"disabled key", "/app/dead-key?protocol=7", "", "app_disabled", 4003, disabled},
		{"no protocol", "/app/" + env.Key, "", "no_protocol", 4008, "No protocol version supplied: add protocol=7 to the URL"},
		{"protocol that is no number", "/app/" + env.Key + "?protocol=seven", "", "bad_version", 4006, badText},
		{"protocol beyond all numbers", "/app/" + env.Key + "?protocol=99999999999999999999", "", "bad_version", 4006, badText},
		{"old protocol", "/app/" + env.Key + "?protocol=3", "", "unsupported_protocol", 4007, oldText},
		{"future protocol", "/app/" + env.Key + "?protocol=8", "", "unsupported_protocol", 4007, oldText},
		{"negative protocol", "/app/" + env.Key + "?protocol=-7", "", "unsupported_protocol", 4007, oldText},
		{"bad origin", "/app/origin-key?protocol=7", "Origin: https://example.com.evil.org\r\n", "bad_origin", 4009, "Origin not allowed"},
		{"no origin", "/app/origin-key?protocol=7", "", "bad_origin", 4009, "Origin not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, closes(c.reason), 1, func() {
				s := w.open(t, c.path, c.header)
				s.gets(errorFrame(c.code, c.text))
				s.closed(c.code, c.text)
			})
		})
	}
	t.Run("good origin", func(t *testing.T) {
		s := w.open(t, "/app/origin-key?protocol=7", "Origin: https://www.example.com\r\n")
		if hello := s.text(); !strings.Contains(hello, "connection_established") {
			t.Errorf("got %s", hello)
		}
	})
	t.Run("over quota", func(t *testing.T) {
		first := w.greeted(t, "quota-key")
		w.counts(t, closes("over_quota"), 1, func() {
			s := w.open(t, "/app/quota-key?protocol=7", "")
			s.gets(errorFrame(4004, "Application is over its connection quota"))
			s.closed(4004, "Application is over its connection quota")
		})
		first.alive()
	})
}

// badFrames break RFC 6455, or are no text.
func (w *world) badFrames(t *testing.T) {
	const messageMax = 64 << 10
	over := fmt.Sprintf("message too big: at most %d bytes are allowed", messageMax)
	for _, c := range []struct {
		name, metric string
		send         []byte
		told         []string
		code         int
		reason       string
	}{
		{"unmasked", ended("protocol"), append(header(0x81, 0, 2), "{}"...), nil, 1002, "frames from client to server must be masked"},
		{"reserved opcode", ended("protocol"), frame(0x83, nil), nil, 1002, "use of reserved op code"},
		{"reserved bit", ended("protocol"), frame(0xc1, []byte("{}")), nil, 1002, "non-zero rsv bits with no extension negotiated"},
		{"too large", ended("too_big"), header(0x81, 0x80, messageMax+1), nil, 1009, over},
		{"too large in fragments", ended("too_big"), append(frame(0x01, bytes.Repeat([]byte("a"), messageMax)), frame(0x80, []byte("a"))...), nil, 1009, over},
		{"2^62 bytes announced", ended("too_big"), []byte{0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, nil, 1009, over},
		{"text that is not UTF-8", ended("protocol"), frame(0x81, []byte("{\"event\":\"\xff\"}")), nil, 1007, "text is not UTF-8"},
		{"close code 1005", ended("protocol"), closeFrame(1005), nil, 1002, "close code is not allowed"},
		{"close code 65535", ended("protocol"), closeFrame(65535), nil, 1002, "close code is not allowed"},
		{"close with one byte", ended("protocol"), frame(0x88, []byte{3}), nil, 1002, "close frame has a one byte body"},
		{"binary", closes("malformed"), frame(0x82, []byte(`{"event":"pusher:ping"}`)), []string{errorFrame(0, notAMessage)}, 1002, notAMessage},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				s := w.greeted(t, env.Key)
				if len(c.send) == 14 || c.name == "too large" { // the mask belongs to the header
					c.send = append(c.send, 0, 0, 0, 0)
				}
				s.write(c.send)
				s.gets(c.told...)
				s.closed(c.code, c.reason)
			})
		})
	}
}

// badMessages are texts that mean nothing; the connection stays.
func (w *world) badMessages(t *testing.T) {
	const (
		notObject = `the message is not a JSON object: expected {"event":...,"data":...}`
		noEvent   = `the message has no "event", or one that is not a string`
		noChannel = `the message's data has no "channel"`
		notData   = `the message's "data" is neither a JSON object nor a string that holds one`
	)
	for _, c := range []struct{ name, send, reason, told string }{
		{"cut JSON", `{"event":`, "malformed", "the message is not JSON: unexpected end of JSON input"},
		{"not JSON", `hello`, "malformed", "the message is not JSON: invalid character 'h' looking for beginning of value"},
		{"nothing", "", "malformed", "the message is not JSON: unexpected end of JSON input"},
		{"too deep", `{"event":"pusher:ping","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, "malformed", "the message is not JSON: invalid character '[' exceeded max depth"},
		{"array", `[]`, "malformed", notObject},
		{"number", `1`, "malformed", notObject},
		{"no event", `{"data":{}}`, "malformed", noEvent},
		{"event that is a number", `{"event":1}`, "malformed", noEvent},
		{"subscribe without data", `{"event":"pusher:subscribe"}`, "malformed", notData},
		{"data that is an array", `{"event":"pusher:subscribe","data":[]}`, "malformed", notData},
		{"data that is a string of no object", `{"event":"pusher:subscribe","data":"x"}`, "malformed", notData},
		{"no channel", `{"event":"pusher:subscribe","data":{}}`, "malformed", noChannel},
		{"channel that is a number", `{"event":"pusher:subscribe","data":{"channel":1}}`, "malformed", `"channel" in the message's data is not a string`},
		{"auth that is an object", `{"event":"pusher:subscribe","data":{"channel":"a","auth":{}}}`, "malformed", `"auth" in the message's data is not a string`},
		{"unknown event of the protocol", `{"event":"pusher:nonsense","data":{}}`, "ignored", ""},
		{"an event of the server", `{"event":"pusher_internal:member_added","channel":"a","data":{}}`, "ignored", ""},
		{"event that is not a client's", `{"event":"order","channel":"a","data":{}}`, "bad_event", "events of clients must have names that begin with client-"},
		{"unsubscribe without subscription", `{"event":"pusher:unsubscribe","data":{"channel":"a"}}`, "not_subscribed", "No current subscription to channel a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, refused(c.reason), 1, func() {
				s := w.greeted(t, env.Key)
				s.send(c.send)
				if c.told != "" {
					s.gets(errorFrame(0, c.told))
				}
				s.alive()
			})
		})
	}
	t.Run("one too many", func(t *testing.T) {
		w.counts(t, closes("malformed"), 1, func() {
			s := w.greeted(t, env.Key)
			for range 11 {
				s.send(`[]`)
				s.gets(errorFrame(0, notObject))
			}
			s.closed(1002, notAMessage)
		})
	})
}

// subscriptionCase is a subscribe that must be refused; the connection stays.
type subscriptionCase struct {
	name, metric, channel string
	auth, data            string // auth may hold ID, the socket's id
	kind                  string
	status                int
	told                  string // may hold ID
}

func (w *world) badSubscriptions(t *testing.T) {
	long := strings.Repeat("x", 201)
	const chars = "channel name holds %q; allowed are letters, digits and _ - = @ , . ;"
	signature1 := decided("subscribe", "bad_signature")
	for _, c := range []subscriptionCase{
		{name: "channel name too long", metric: refused("bad_channel"), channel: long, kind: "LimitReached", status: 4009, told: "channel name has 201 characters, at most 200 are allowed"},
		{name: "channel name with a space", metric: refused("bad_channel"), channel: "a b", kind: "LimitReached", status: 4009, told: fmt.Sprintf(chars, " ")},
		{name: "channel name with a wildcard", metric: refused("bad_channel"), channel: "a>", kind: "LimitReached", status: 4009, told: fmt.Sprintf(chars, ">")},
		{name: "reserved channel", metric: refused("bad_channel"), channel: "#online-7", kind: "LimitReached", status: 4009, told: fmt.Sprintf(chars, "#")},
		{name: "somebody's channel", metric: refused("unauthorized"), channel: "#server-to-user-7", kind: "AuthError", status: 401, told: "only the user that it belongs to, once signed in, may subscribe to #server-to-user-7"},
		{name: "private without auth", metric: refused("unauthorized"), channel: "private-a", kind: "AuthError", status: 401, told: "the channel private-a needs authorization: subscribe with auth"},
		{name: "encrypted without auth", metric: refused("unauthorized"), channel: "private-encrypted-a", kind: "AuthError", status: 401, told: "the channel private-encrypted-a needs authorization: subscribe with auth"},
		{name: "auth of another form", metric: signature1, channel: "private-a", auth: "nonsense", kind: "AuthError", status: 401, told: `auth is "nonsense", want "<key>:<signature>"`},
		{name: "wrong signature", metric: signature1, channel: "private-a", auth: env.Key + ":00", kind: "AuthError", status: 401, told: `Invalid signature: expected the HMAC-SHA256 hex digest of "ID:private-a", got "00"`},
		{name: "another app's key", metric: signature1, channel: "private-a", auth: "wide-key:00", kind: "AuthError", status: 401, told: `key "wide-key" is not a key of this app`},
		{name: "channel_data that is not signed", metric: signature1, channel: "presence-a", auth: env.Key + ":00", data: `{"user_id":"1"}`, kind: "AuthError", status: 401, told: `Invalid signature: expected the HMAC-SHA256 hex digest of "ID:presence-a:{"user_id":"1"}", got "00"`},
	} {
		t.Run(c.name, func(t *testing.T) { w.refusesSubscription(t, c, func(_, auth string) string { return auth }) })
	}
	const example = `want one such as {"user_id":"1","user_info":{}}`
	fat, fatID := strings.Repeat("x", 1023), strings.Repeat("x", 129)
	badData, tooLarge := decided("subscribe", "bad_data"), decided("subscribe", "too_large")
	for _, c := range []subscriptionCase{
		{name: "presence without channel_data", metric: badData, kind: "AuthError", status: 401, told: `channel_data is missing: a presence channel needs channel_data such as {"user_id":"1","user_info":{}} in the subscribe message, or a connection that has signed in`},
		{name: "channel_data that is not JSON", metric: badData, data: `{"user_id":`, kind: "AuthError", status: 401, told: "channel_data is not a JSON object, " + example},
		{name: "channel_data that is an array", metric: badData, data: `[1]`, kind: "AuthError", status: 401, told: "channel_data is not a JSON object, " + example},
		{name: "no user_id", metric: badData, data: `{}`, kind: "AuthError", status: 401, told: `channel_data has no user_id, want it such as {"user_id":"1","user_info":{}}`},
		{name: "empty user_id", metric: badData, data: `{"user_id":""}`, kind: "AuthError", status: 401, told: "channel_data: user_id is empty, want a non-empty string or a number"},
		{name: "user_id that is an object", metric: badData, data: `{"user_id":{}}`, kind: "AuthError", status: 401, told: "channel_data: user_id is neither a string nor a number"},
		{name: "user_id too long", metric: tooLarge, data: `{"user_id":"` + fatID + `"}`, kind: "LimitReached", status: 4301, told: "the user id has 129 bytes, at most 128 are allowed"},
		{name: "user_info too large", metric: tooLarge, data: `{"user_id":"1","user_info":"` + fat + `"}`, kind: "LimitReached", status: 4301, told: "user_info has 1025 bytes, at most 1024 are allowed"},
	} {
		c.channel = "presence-a"
		t.Run(c.name, func(t *testing.T) {
			w.refusesSubscription(t, c, func(id, _ string) string {
				return signature.Auth(env.Key, env.Secret, signature.Channel(id, c.channel, c.data))
			})
		})
	}
	t.Run("subscribed already", func(t *testing.T) {
		w.counts(t, refused("already_done"), 1, func() {
			s := w.greeted(t, env.Key)
			s.subscribes(signed(s.id, "private-a", "", env.Key, env.Secret))
			s.send(signed(s.id, "private-a", "", env.Key, env.Secret))
			s.gets(errorFrame(0, "Existing subscription to channel private-a"))
			s.alive()
		})
	})
	t.Run("too many members", func(t *testing.T) {
		join := func(s *socket, user string) string {
			return signed(s.id, "presence-full", `{"user_id":"`+user+`"}`, "narrow-key", "s")
		}
		first, second := w.greeted(t, "narrow-key"), w.greeted(t, "narrow-key")
		first.subscribes(join(first, "1"))
		second.subscribes(join(second, "2"))
		w.counts(t, `carillon_gateway_joins_total{reason="full"}`, 1, func() {
			s := w.greeted(t, "narrow-key")
			s.send(join(s, "3"))
			s.gets(refusedSubscription("presence-full", "LimitReached", 4100, "the channel has reached its limit of members")...)
			s.alive()
			s.subscribes(join(s, "2")) // who is there already may come again
		})
		first.gets(`{"event":"pusher_internal:member_added","channel":"presence-full","data":"{\"user_id\":\"2\"}"}`)
		first.alive()
	})
}

// badResumes are places that can't be: refused one after the other on one
// connection, far more than messages that are none of the protocol.
func (w *world) badResumes(t *testing.T) {
	const (
		position = `"position" is %s, want it as it was told, such as "73728"`
		rewind   = `"rewind" is %s, want a whole number from 1 to 10000`
		together = `"resume" needs position and epoch together: one says nothing without the other`
	)
	s := w.greeted(t, env.Key)
	for _, c := range []struct{ name, resume, told string }{
		{"no object", `7`, `"resume" is not an object with position and epoch, or rewind`},
		{"negative", `{"position":"-1","epoch":"e"}`, fmt.Sprintf(position, `"-1"`)},
		{"beyond all positions", `{"position":"99999999999999999999","epoch":"e"}`, fmt.Sprintf(position, `"99999999999999999999"`)},
		{"garbage", `{"position":"x","epoch":"e"}`, fmt.Sprintf(position, `"x"`)},
		{"a broken number", `{"position":1e99,"epoch":"e"}`, fmt.Sprintf(position, `1e99`)},
		{"no epoch", `{"position":"1"}`, together},
		{"no position", `{"epoch":"e"}`, together},
		{"rewind nothing", `{"rewind":0}`, fmt.Sprintf(rewind, `0`)},
		{"rewind forward", `{"rewind":-3}`, fmt.Sprintf(rewind, `-3`)},
		{"rewind a world", `{"rewind":1000000000}`, fmt.Sprintf(rewind, `1000000000`)},
		{"rewind in words", `{"rewind":"all"}`, fmt.Sprintf(rewind, `"all"`)},
		{"an endless epoch", `{"position":"1","epoch":"` + strings.Repeat("e", 65) + `"}`, `"epoch" is "` + strings.Repeat("e", 39) + `..., want it as it was told: a string of up to 64 bytes`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, refused("bad_resume"), 1, func() {
				s.send(`{"event":"pusher:subscribe","data":{"channel":"durable-a","resume":` + c.resume + `}}`)
				s.gets(refusedSubscription("durable-a", "InvalidResume", 400, c.told)...)
				s.alive()
			})
		})
	}
	t.Run("what can't be found is not recovered", func(t *testing.T) {
		for _, resume := range []string{
			`{"position":"5","epoch":"e"}`, `{"position":"9007199254740991","epoch":"e"}`, `{"position":"0","epoch":"\u0000\ud800"}`,
		} {
			w.counts(t, `carillon_gateway_resumes_total{reason="lost"}`, 1, func() {
				s.send(`{"event":"pusher:subscribe","data":{"channel":"durable-a","resume":` + resume + `}}`)
				if answer := s.text(); !strings.Contains(answer, `{\"resume\":{\"recovered\":false,\"position\":\"`) {
					t.Errorf("answered %s", answer)
				}
				s.send(`{"event":"pusher:unsubscribe","data":{"channel":"durable-a"}}`)
				s.alive()
			})
		}
	})
}

func (w *world) refusesSubscription(t *testing.T, c subscriptionCase, auth func(id, auth string) string) {
	t.Helper()
	w.counts(t, c.metric, 1, func() {
		s := w.greeted(t, env.Key)
		s.send(subscribe(c.channel, auth(s.id, c.auth), c.data))
		s.gets(refusedSubscription(c.channel, c.kind, c.status, strings.ReplaceAll(c.told, "ID", s.id))...)
		s.alive()
	})
}

func (w *world) badSignIns(t *testing.T) {
	for _, c := range []struct {
		name, metric, auth, data string // auth "sign" signs
		code                     int
		told                     string // may hold ID
	}{
		{"no auth", refused("unauthorized"), "", `{"id":"1"}`, 4009, "sign-in needs auth"},
		{"no user_data", refused("bad_data"), "x:y", "", 4009, "sign-in needs user_data"},
		{"wrong signature", decided("signin", "bad_signature"), env.Key + ":00", "{}", 4009, `Invalid signature: expected the HMAC-SHA256 hex digest of "ID::user::{}", got "00"`},
		{"user_data that is not JSON", decided("signin", "bad_data"), "sign", "{", 4009, `user_data is not a JSON object, want one such as {"id":"1","user_info":{}}`},
		{"no id", decided("signin", "bad_data"), "sign", "{}", 4009, `user_data has no id, want it such as {"id":"1","user_info":{}}`},
		{"watchlist that is no list", decided("signin", "bad_data"), "sign", `{"id":"1","watchlist":"2"}`, 4009, `user_data: watchlist is not a list of user ids, want it such as ["1","2"]`},
		{"id too long", decided("signin", "too_large"), "sign", `{"id":"` + strings.Repeat("x", 129) + `"}`, 4301, "the user id has 129 bytes, at most 128 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				s := w.greeted(t, env.Key)
				auth := c.auth
				if auth == "sign" {
					auth = signature.Auth(env.Key, env.Secret, signature.User(s.id, c.data))
				}
				s.send(`{"event":"pusher:signin","data":{"auth":` + quoted(auth) + `,"user_data":` + quoted(c.data) + `}}`)
				s.gets(errorFrame(c.code, strings.ReplaceAll(c.told, "ID", s.id)))
				s.alive()
			})
		})
	}
}
