package framing

import "testing"

func TestFramings(t *testing.T) {
	const text = `{"a":"é"}`
	for name, c := range map[string]struct {
		framing           Framing
		message, two, end string
	}{
		"WebSocket":       {WebSocket, "\x81\x0a" + text, "\x81\x01x", "\x88\x07\x10\x68slow!"},
		"WebSocketBinary": {WebSocketBinary, "\x82\x0a" + text, "\x82\x01x", "\x88\x07\x10\x68slow!"},
		"SockJS":          {SockJS, `a["{\"a\":\"é\"}"]` + "\n", `a["x"]` + "\n", `c[4200,"slow!"]` + "\n"},
		"SockJSWebSocket": {SockJSWebSocket, "\x81\x13" + `a["{\"a\":\"é\"}"]`, "\x81\x06" + `a["x"]`, "\x81\x0f" + `c[4200,"slow!"]` + "\x88\x07\x10\x68slow!"},
		"Lines":           {Lines, text + "\n", "x\n", ""},
		"Events":          {Events, "data: " + text + "\n\n", "data: x\n\n", ""},
		"Delimited":       {Delimited, "\x0a" + text, "\x01x", ""},
		"Verbatim":        {Verbatim, text, "x", ""},
	} {
		b := c.framing.Append([]byte("before"), []byte(text))
		b = c.framing.Append(b, []byte("x"))
		b = c.framing.AppendClose(b, 4200, "slow!")
		if want := "before" + c.message + c.two + c.end; string(b) != want {
			t.Errorf("%s: %q, want %q", name, b, want)
		}
	}
}

func TestEventsKeepLineFeeds(t *testing.T) {
	if got := string(Events.Append(nil, []byte("a\nb\n"))); got != "data: a\ndata: b\ndata: \n\n" {
		t.Errorf("%q", got)
	}
}

func TestDelimitedLengths(t *testing.T) {
	if got := Delimited.Append(nil, make([]byte, 300)); len(got) != 302 || got[0] != 0xac || got[1] != 0x02 {
		t.Errorf("%d bytes that begin with %x", len(got), got[:2])
	}
}
