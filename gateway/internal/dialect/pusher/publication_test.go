package pusher

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

var samples = map[string]message.Publication{
	"event":        {Kind: message.Event, Channel: "news", Event: "my-event", Data: []byte(`{"headline":"a \"quoted\" <b>word</b>","n":12345678}`)},
	"client event": {Kind: message.ClientEvent, Channel: "presence-a", Event: "client-x", Data: []byte(`{"a":1}`), UserID: `"u1"`},
	"added":        {Kind: message.MemberAdded, Channel: "presence-a", UserID: `"u\"1"`, Data: []byte(`{"name":"A"}`)},
	"removed":      {Kind: message.MemberRemoved, Channel: "presence-a", UserID: "10"},
	"count":        {Kind: message.SubscriptionCount, Channel: "news", Version: 12},
	"online":       {Kind: message.UserOnline, Channel: channel.OnlinePrefix + "u1", UserID: "u1"},
	"offline":      {Kind: message.UserOffline, Channel: channel.OnlinePrefix + "u1"},
}

// The transcripts of the sessions show what the frames look like.
func TestAppendPublicationAllocatesNothing(t *testing.T) {
	p, dst := New(""), make([]byte, 0, 1024)
	for name, pub := range samples {
		if n := testing.AllocsPerRun(100, func() { dst = p.AppendPublication(dst[:0], &pub) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if !json.Valid(dst) {
			t.Errorf("%s: %s", name, dst)
		}
	}
}

func TestAppendPublicationLeavesOutUnknownKinds(t *testing.T) {
	for _, pub := range []message.Publication{
		{Kind: 200, Channel: "a", Event: "x"},
		{Kind: message.MemberAdded, Channel: "room", UserID: `"1.2"`}, // a member in another protocol's sense
	} {
		if got := New("").AppendPublication([]byte("kept"), &pub); string(got) != "kept" {
			t.Errorf("appended %s", got)
		}
	}
}

func BenchmarkAppendPublication(b *testing.B) {
	for name, pub := range samples {
		b.Run(name, func(b *testing.B) {
			p, dst := New(""), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				dst = p.AppendPublication(dst[:0], &pub)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, payload := range map[string]string{
		"ping":         `{"event":"pusher:ping","data":{}}`,
		"subscribe":    `{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}`,
		"presence":     `{"event":"pusher:subscribe","data":{"auth":"278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80","channel_data":"{\"user_id\":10,\"user_info\":{\"name\":\"Mr. Channels\"}}","channel":"presence-foobar"}}`,
		"client event": `{"event":"client-typing","channel":"private-room","data":{"a":1,"text":"some words, and \"quotes\""}}`,
	} {
		b.Run(name, func(b *testing.B) {
			p, raw := New(""), []byte(payload)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Decode(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzFrames checks that whatever is told stays what it was once the client
// has decoded it.
func FuzzFrames(f *testing.F) {
	f.Add("news", "my-event", []byte(`{"a":"\u00e9"}`), "u\"1", `{"name":"<Z>"}`)
	f.Add("", "", []byte("not JSON \x00\x7f \u2028"), "10", "")
	f.Add("a\\b", "\"", []byte{0xff, '"'}, "é", `[]`)
	p := New("")
	f.Fuzz(func(t *testing.T, name, event string, data []byte, user, info string) {
		for _, text := range []string{name, event, user, info} {
			if !utf8.ValidString(text) {
				return // everything that comes in is checked
			}
		}
		if info != "" && !json.Valid([]byte(info)) {
			info = `{"x":1}`
		}
		rawID := quoted(user)
		pub := message.Publication{Kind: message.Event, Channel: name, Event: event, Data: data}
		frame := decodeFrame(t, p.AppendPublication(nil, &pub))
		if event == "" {
			event = "message"
		}
		if frame.Event != event || frame.Channel != name || (utf8.Valid(data) && frame.text(t) != string(data)) {
			t.Fatalf("event came out as %+v", frame)
		}
		pub = message.Publication{Kind: message.MemberAdded, Channel: "presence-" + name, UserID: rawID, Data: []byte(info)}
		member := rawID
		if info != "" {
			member += `,"user_info":` + info
		}
		if got := decodeFrame(t, p.AppendPublication(nil, &pub)).text(t); got != `{"user_id":`+member+`}` {
			t.Fatalf("member came out as %s", got)
		}
		for kind, word := range map[message.Kind]string{message.UserOnline: "online", message.UserOffline: "offline"} {
			pub = message.Publication{Kind: kind, Channel: channel.OnlinePrefix + user, UserID: user}
			frame := decodeFrame(t, p.AppendPublication(nil, &pub))
			want := fmt.Sprintf(`{"events":[{"name":%q,"user_ids":[%s]}]}`, word, rawID)
			if frame.Channel != "" || !same(t, frame.text(t), want) {
				t.Fatalf("%s came out as %+v", word, frame)
			}
		}
		roster(t, p, name, presence.Member{ID: user, RawID: rawID, Info: info})
		messages(t, p, name, user)
	})
}

func roster(t *testing.T, p *Pusher, name string, m presence.Member) {
	var out sent
	p.Encode(dialect.Event{Kind: dialect.Subscribed, Channel: name, Presence: true, Members: []presence.Member{m}}, &out)
	info := m.Info
	if info == "" {
		info = "null"
	}
	want := fmt.Sprintf(`{"presence":{"count":1,"ids":[%s],"hash":{%s:%s}}}`, m.RawID, quoted(m.ID), info)
	if got := decodeFrame(t, out[0]).text(t); !same(t, got, want) {
		t.Fatalf("roster came out as %s, want %s", got, want)
	}
}

func messages(t *testing.T, p *Pusher, name, text string) {
	var out sent
	p.Encode(dialect.Event{Kind: dialect.SubscribeError, Channel: name, Reason: dialect.Unauthorized, Message: text + "!"}, &out)
	p.Encode(dialect.Event{Kind: dialect.SignedIn, UserData: text}, &out)
	if len(out) != 3 {
		t.Fatalf("%d messages, want 3", len(out))
	}
	want := fmt.Sprintf(`{"type":"AuthError","error":%s,"status":401}`, quoted(text+"!"))
	if frame := decodeFrame(t, out[1]); frame.Channel != name || !same(t, frame.text(t), want) {
		t.Fatalf("subscription error came out as %+v", frame)
	}
	if got := decodeFrame(t, out[2]).text(t); !same(t, got, `{"user_data":`+quoted(text)+`}`) {
		t.Fatalf("user data came out as %s", got)
	}
}

type sent [][]byte

// Send implements dialect.Sender.
func (s *sent) Send(payload []byte) { *s = append(*s, append([]byte(nil), payload...)) }

type frame struct {
	Event, Channel string
	Data           json.RawMessage
}

func (f frame) text(t *testing.T) string {
	var s string
	if err := json.Unmarshal(f.Data, &s); err != nil {
		t.Fatalf("data is not a string: %s", f.Data)
	}
	return s
}

func decodeFrame(t *testing.T, payload []byte) (f frame) {
	if err := json.Unmarshal(payload, &f); err != nil {
		t.Fatalf("%v: %s", err, payload)
	}
	return f
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// same compares JSON by what it stands for, numbers by their text.
func same(t *testing.T, a, b string) bool {
	var values [2]any
	for i, text := range [...]string{a, b} {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// Subscribers that keep their place get the same message with one member
// more, behind all others.
func TestAppendPositioned(t *testing.T) {
	p := New("")
	for _, pub := range []message.Publication{
		{Kind: message.Event, Channel: "news", Event: "e", Data: []byte(`{"a":"b"}`)},
		{Kind: message.Event, Channel: "news"},
		{Kind: message.ClientEvent, Channel: "private-a", Event: "client-e", Data: []byte(`{"position":"1"}`), UserID: `"7"`},
		{Kind: message.MemberAdded, Channel: "presence-a", UserID: "7", Data: []byte(`{}`)},
		{Kind: message.SubscriptionCount, Channel: "news", Version: 3},
		{Kind: 99, Channel: "news"},
	} {
		plain := string(p.AppendPublication(nil, &pub))
		if got := string(p.AppendPositioned(nil, 0, &pub)); got != plain {
			t.Errorf("without a position got %s, want %s", got, plain)
		}
		want := ""
		if plain != "" {
			want = strings.TrimSuffix(plain, "}") + `,"position":"71681"}`
		}
		got := p.AppendPositioned([]byte("before"), message.At(70, 1), &pub)
		if string(got) != "before"+want || want != "" && !json.Valid(got[len("before"):]) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		buf = p.AppendPositioned(buf[:0], message.At(70, 1), &message.Publication{Kind: message.Event, Channel: "news", Data: []byte("x")})
	}); n > 1 { // the publication
		t.Errorf("%v allocations", n)
	}
}

var buf = make([]byte, 0, 1024)
