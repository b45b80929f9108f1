package fleet

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// in gives the messages of a frame as the fleet understands them.
func in(c Centrifugo, payload []byte) (kinds []string) {
	for more := payload; ; {
		var m []byte
		m, more = c.Cut(more)
		r := c.Receive(m)
		kinds = append(kinds, fmt.Sprint(r.Kind, " ", string(r.SocketID)))
		if len(more) == 0 {
			return kinds
		}
	}
}

func TestCentrifugoUnderstands(t *testing.T) {
	connected := fmt.Sprint(Greeting, " ab-c")
	subscribed, refused, other, ping := fmt.Sprint(Subscribed, " "), fmt.Sprint(Refused, " "), fmt.Sprint(Other, " "), fmt.Sprint(Ping, " ")
	for _, c := range []struct {
		json, protobuf string // hex
		want           []string
	}{
		{`{"id":4,"connect":{"client":"ab-c","version":"x","ping":25,"pong":true}}`, "0d 0804 2a09 0a0461622d63 120178", []string{connected}},
		{`{"id":5,"subscribe":{}}`, "04 0805 3200", []string{subscribed}},
		{`{"id":5,"error":{"code":103,"message":"permission denied"}}`, "06 0805 1202 0867", []string{refused}},
		{`{"id":6,"unsubscribe":{}}`, "04 0806 3a00", []string{other}},
		{`{"push":{"channel":"a","pub":{"data":{"error":{}}}}}`, "05 2203 120161", []string{other}},
		{`{}`, "00", []string{ping}},
		{"{\"id\":4,\"connect\":{\"client\":\"ab-c\"}}\n{\"id\":5,\"subscribe\":{}}\n{}", "0a 0804 2a06 0a0461622d63 04 0805 3200 00", []string{connected, subscribed, ping}},
	} {
		if got := in(Centrifugo{}, []byte(c.json)); strings.Join(got, ",") != strings.Join(c.want, ",") {
			t.Errorf("%s: %v, want %v", c.json, got, c.want)
		}
		binary, err := hex.DecodeString(strings.ReplaceAll(c.protobuf, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := in(Centrifugo{Protobuf: true}, binary); strings.Join(got, ",") != strings.Join(c.want, ",") {
			t.Errorf("%s: %v, want %v", c.protobuf, got, c.want)
		}
	}
}

func TestCentrifugoSurvivesAnything(t *testing.T) {
	for _, b := range []string{"", "\n", "\xff", "\xff\xff\xff\xff\xff", "\x05\x08", "\x02\x08\xff", "\x01\x2a", "\x02\x2a\xff", "\x04\x2a\x02\x0a\xff"} {
		for _, c := range []Centrifugo{{}, {Protobuf: true}} {
			in(c, []byte(b))
		}
	}
}
