package pusher

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, payload string
		want          dialect.Command
	}{
		{
			"subscribe", `{"event":"pusher:subscribe","data":{"auth":"k:s","channel_data":"{\"user_id\":10}","channel":"presence-a"}}`,
			dialect.Command{Kind: dialect.Subscribe, Channel: "presence-a", Auth: "k:s", ChannelData: `{"user_id":10}`},
		},
		{
			"data as a string", `{"data":" {\"channel\":\"a\",\"channel_data\":\"{\\\"user_id\\\":\\\"\\u00e9\\\"}\"}","event":"pusher:subscribe"}`,
			dialect.Command{Kind: dialect.Subscribe, Channel: "a", ChannelData: `{"user_id":"é"}`},
		},
		{
			"white space everywhere", " {\n\"event\" : \"pusher:unsubscribe\" ,\t\"data\" : { \"channel\" : \"a\" } }\r\n ",
			dialect.Command{Kind: dialect.Unsubscribe, Channel: "a"},
		},
		{
			"the last of repeated members counts", `{"event":"x","event":"pusher:unsubscribe","data":{"channel":"a","channel":"b"}}`,
			dialect.Command{Kind: dialect.Unsubscribe, Channel: "b"},
		},
		{
			"escapes", `{"\u0065vent":"client-\ud83d\ude00\ud83d\/\b\f\n\r\t\"\\","channel":"\u0061","data":[1, "\u0061"]}`,
			dialect.Command{Kind: dialect.Publish, Event: "client-😀\ufffd/\b\f\n\r\t\"\\", Channel: "a", Data: []byte(`[1, "\u0061"]`)},
		},
		{
			"half a surrogate pair before an escape", `{"event":"client-\ud83d\u0041\udc00","channel":"a"}`,
			dialect.Command{Kind: dialect.Publish, Event: "client-\ufffdA\ufffd", Channel: "a"},
		},
		{"ping", `{"event":"pusher:ping","data":5}`, dialect.Command{Kind: dialect.Ping}},
		{"pong", `{"event":"pusher:pong"}`, dialect.Command{Kind: dialect.Pong}},
		{"unknown", `{"event":"pusher:","data":5}`, dialect.Command{Kind: dialect.Unknown}},
		{
			"sign-in", `{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"1\"}","other":{}}}`,
			dialect.Command{Kind: dialect.SignIn, Auth: "k:s", UserData: `{"id":"1"}`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, err := New("").Decode([]byte(c.payload))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(cmd, c.want) {
				t.Errorf("got  %+v\nwant %+v", cmd, c.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, payload, want string }{
		{"nothing", "", "not JSON"},
		{"not UTF-8", "{\"event\":\"client-\xff\",\"channel\":\"a\"}", "UTF-8"},
		{"two values", `{"event":"pusher:ping"} {}`, "not JSON"},
		{"array", `["pusher:ping"]`, "not a JSON object"},
		{"no event", `{}`, `no "event"`},
		{"event null", `{"event":null}`, `no "event"`},
		{"data in data", `{"event":"pusher:subscribe","data":"\"{}\""}`, "neither"},
		{"data no JSON", `{"event":"pusher:subscribe","data":"{"}`, "neither"},
		{"data an array", `{"event":"pusher:subscribe","data":[]}`, "neither"},
		{"auth a number", `{"event":"pusher:subscribe","data":{"channel":"a","auth":1}}`, `"auth"`},
		{"depth", `{"event":"client-x","channel":"a","data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New("").Decode([]byte(c.payload))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	var r *dialect.Refusal
	if _, err := New("").Decode([]byte(`{"event":"x","channel":"a"}`)); !errors.As(err, &r) || r.Reason != dialect.BadEvent {
		t.Errorf("an event that is not a client event: %v, want a refusal for %s", err, dialect.BadEvent)
	}
}

// FuzzDecode compares the decoder with encoding/json.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"event":"pusher:subscribe","data":{"auth":"k:s","channel_data":"{\"user_id\":10}","channel":"presence-a"}}`,
		`{"event":"pusher:subscribe","data":"{\"channel\":\"a\"}"}`,
		`{"event":"pusher:signin","data":{"auth":null,"user_data":"\ud83d\ude00\ud83d"}}`,
		`{"event":"client-x","channel":"private-a","data":{"a":[1,2.5e3,true,null,"]}\\\""]}}`,
		" {\n\"\\u0065vent\" : \"pusher:ping\" }\r\n ", `{"event":"pusher:unsubscribe","data":{"channel":5}}`, `{"event":"other"}`, `[]`,
		`{"event":"pusher:subscribe","data":{"channel":"a","resume":{"position":"73728","epoch":"e1","socket_id":"1.2","rewind":3}}}`,
		`{"event":"pusher:subscribe","data":{"channel":"a","resume":{"position":5,"epoch":"\ud83d","rewind":1e9}}}`,
		`{"event":"pusher:subscribe","data":{"channel":"a","resume":true}}`, `{"event":"pusher:subscribe","data":{"channel":"a","resume":[{}]}}`,
	} {
		f.Add([]byte(seed))
	}
	p := New("")
	f.Fuzz(func(t *testing.T, payload []byte) {
		want, ok := slowly(payload)
		got, err := p.Decode(payload)
		if (err == nil) != ok {
			t.Fatalf("decoded %q: %v, expected success: %v", payload, err, ok)
		}
		if !ok {
			return
		}
		checkWish(t, got.Resume, want.Resume != nil)
		got.Resume, want.Resume = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded %q\ngot  %+v\nwant %+v", payload, got, want)
		}
	})
}

// checkWish: whatever a client writes, a wish is wrong or within its limits.
func checkWish(t *testing.T, w *resume.Wish, wanted bool) {
	t.Helper()
	switch {
	case (w != nil) != wanted:
		t.Fatalf("wish %+v, wanted: %v", w, wanted)
	case w == nil || w.Wrong != "":
	case w.Since.Position > 1<<53-1, w.Since.Epoch == "" && w.Since.Position != 0, w.Rewind < 0 || w.Rewind > resume.RewindMax,
		len(w.Since.Epoch) > 3*epochBytesMax, len(w.Socket) > 3*socketBytesMax:
		t.Fatalf("wish %+v", w)
	}
	if w != nil && !utf8.ValidString(w.Wrong+w.Since.Epoch+w.Socket) {
		t.Fatalf("wish %+v is not UTF-8", w)
	}
}

// slowly decodes the plain way, but for what is in a wish.
func slowly(payload []byte) (cmd dialect.Command, ok bool) {
	var top map[string]json.RawMessage
	var event string
	if !utf8.Valid(payload) || json.Unmarshal(payload, &top) != nil || top == nil || !isString(top["event"], &event) {
		return cmd, false
	}
	kinds := map[string]dialect.CommandKind{
		"pusher:subscribe": dialect.Subscribe, "pusher:unsubscribe": dialect.Unsubscribe, "pusher:signin": dialect.SignIn,
		"pusher:ping": dialect.Ping, "pusher:pong": dialect.Pong,
	}
	kind, known := kinds[event]
	cmd.Kind = kind
	switch {
	case kind == dialect.Ping, kind == dialect.Pong:
		return cmd, true
	case known:
		return slowlyData(cmd, top["data"])
	case strings.HasPrefix(event, "pusher:"), strings.HasPrefix(event, "pusher_internal:"):
		return cmd, true
	}
	cmd = dialect.Command{Kind: dialect.Publish, Event: event, Data: top["data"]}
	return cmd, strings.HasPrefix(event, "client-") && isString(top["channel"], &cmd.Channel)
}

func slowlyData(cmd dialect.Command, raw []byte) (dialect.Command, bool) {
	var inner string
	if isString(raw, &inner) {
		raw = []byte(inner)
	}
	var data map[string]json.RawMessage
	if json.Unmarshal(raw, &data) != nil || data == nil {
		return cmd, false
	}
	for name, field := range map[string]*string{"channel": &cmd.Channel, "auth": &cmd.Auth, "channel_data": &cmd.ChannelData, "user_data": &cmd.UserData} {
		if raw, there := data[name]; there && string(raw) != "null" && !isString(raw, field) {
			return cmd, false
		}
	}
	if wish := string(data["resume"]); cmd.Kind == dialect.Subscribe && wish != "" && wish != "null" && wish != "false" {
		cmd.Resume = &resume.Wish{}
	}
	return cmd, cmd.Kind == dialect.SignIn || cmd.Channel != ""
}

func isString(raw []byte, into *string) bool {
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, into) == nil
}
