package fleet

import (
	"bytes"
	"strings"
	"testing"
)

// serverFrame builds a server's frame.
func serverFrame(op byte, payload string) []byte {
	b := appendFrame(nil, op, []byte(payload))
	b[1] &= 0x7f
	mask := len(b) - len(payload) - 4
	return append(b[:mask], b[mask+4:]...)
}

func TestCutFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65_535, 65_536, 70_000} {
		payload := strings.Repeat("x", size)
		b := serverFrame(opText, payload)
		for _, short := range []int{0, 1, len(b) - size - 1, len(b) - 1} {
			if short >= 0 && short < len(b) {
				if _, _, n := cutFrame(b[:short]); n != 0 {
					t.Errorf("%d bytes of a frame with %d count as complete", short, len(b))
				}
			}
		}
		op, got, n := cutFrame(append(bytes.Clone(b), "more"...))
		if op != opText || string(got) != payload || n != len(b) {
			t.Errorf("payload of %d bytes: op %d, %d bytes, size %d of %d", size, op, len(got), n, len(b))
		}
	}
}

func TestPusherReceives(t *testing.T) {
	for _, c := range []struct {
		message string
		kind    Kind
		id      string
	}{
		{`{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}`, Greeting, "123.456"},
		{`{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}`, Subscribed, ""},
		{`{"event":"pusher:error","data":{"code":4009,"message":"no"}}`, Refused, ""},
		{`{"event":"pusher:subscription_error","channel":"private-x","data":{}}`, Refused, ""},
		{`{"event":"pusher:ping","data":{}}`, Ping, ""},
		{`{"event":"greeting","channel":"news","data":"{}"}`, Other, ""},
	} {
		got := Pusher{}.Receive([]byte(c.message))
		if got.Kind != c.kind || string(got.SocketID) != c.id || (c.kind == Ping) != (got.Reply != nil) {
			t.Errorf("%s: %+v, want kind %d id %q", c.message, got, c.kind, c.id)
		}
	}
}

func TestPusherSigns(t *testing.T) {
	p := Pusher{Key: "278d425bdf160c739803", Secret: "7ad3773142a6692b25b8"}
	for name, want := range map[string]string{
		"private-foobar":  `"auth":"278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"`,
		"presence-foobar": `"channel_data":"{\"user_id\":\"u7\"`,
		"foobar":          `{"channel":"foobar"}`,
	} {
		if got := p.AppendSubscribe(nil, 7, "1234.1234", name); !bytes.Contains(got, []byte(want)) {
			t.Errorf("%s: %q lacks %s", name, got, want)
		}
	}
}
