package pusher

import (
	"testing"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

func TestHello(t *testing.T) {
	for _, c := range []struct {
		prefix, path, query string
		want                dialect.Hello
		ours                bool
	}{
		{"", "/app/k", "protocol=7", dialect.Hello{Key: "k", Protocol: 7}, true},
		{"", "/app/k", "client=js&protocol=5&protocol=9", dialect.Hello{Key: "k", Protocol: 5}, true},
		{"", "/app/k", "protocol=4", dialect.Hello{Key: "k", Protocol: 4, Pingless: true}, true},
		{"", "/app/", "protocol=7", dialect.Hello{Protocol: 7}, true},
		{"", "/app/a%2fb%zz%", "protocol=7", dialect.Hello{Key: "a/b%zz%", Protocol: 7}, true},
		{"", "/app/k", "myprotocol=7", dialect.Hello{Key: "k", Refuse: dialect.NoProtocol}, true},
		{"", "/app/k", "protocol=7.0", dialect.Hello{Key: "k", Refuse: dialect.BadVersion}, true},
		{"", "/app/k", "protocol=0", dialect.Hello{Key: "k", Refuse: dialect.UnsupportedProtocol}, true},
		{"", "/ws/app/k", "protocol=7", dialect.Hello{}, false},
		{"/ws/", "/ws/app/k", "protocol=7", dialect.Hello{Key: "k", Protocol: 7}, true},
		{"ws", "/ws/app/k", "protocol=7", dialect.Hello{Key: "k", Protocol: 7}, true},
		{"/ws", "/app/k", "protocol=7", dialect.Hello{Key: "k", Protocol: 7}, true},
		{"/ws", "/other/app/k", "protocol=7", dialect.Hello{}, false},
		{"", "/app", "protocol=7", dialect.Hello{}, false},
		{"", "/app/k/more", "protocol=7", dialect.Hello{}, false},
		{"", "/apps/1/events", "", dialect.Hello{}, false},
		{"", "", "", dialect.Hello{}, false},
	} {
		got, ours := New(c.prefix).Hello(&httphead.Head{Path: c.path, RawQuery: c.query})
		if got != c.want || ours != c.ours {
			t.Errorf("%q: %s?%s is %+v, %v; want %+v, %v", c.prefix, c.path, c.query, got, ours, c.want, c.ours)
		}
	}
}

// Every reason has words that fit into a close frame, and a code that makes
// clients do the right thing.
func TestClosing(t *testing.T) {
	p := New("")
	seen := map[string]dialect.Reason{}
	for _, why := range dialect.Reasons() {
		code, text := p.Closing(why)
		if text == "" || len(text) > 123 || !utf8.ValidString(text) {
			t.Errorf("%s closes with %q: 1 to 123 bytes of UTF-8 are needed", why, text)
		}
		if other, twice := seen[text]; twice && why != dialect.Ignored {
			t.Errorf("%s and %s both say %q", why, other, text)
		}
		seen[text] = why
		if code == 4000 || code >= 4300 {
			t.Errorf("%s closes with %d, which clients take for something else", why, code)
		}
	}
	for why, band := range map[dialect.Reason][2]int{
		dialect.AppUnknown: {4001, 4099}, dialect.Terminated: {4001, 4099}, dialect.BadOrigin: {4001, 4099}, // stop
		dialect.Slow: {4100, 4199}, dialect.Flood: {4100, 4199}, dialect.Unavailable: {4100, 4199}, // come back later
		dialect.Reconnect: {4200, 4299}, dialect.MaxAge: {4200, 4299}, dialect.NoPong: {4200, 4299}, // come back at once
	} {
		if code, _ := p.Closing(why); code < band[0] || code > band[1] {
			t.Errorf("%s closes with %d, want %v", why, code, band)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, why := range dialect.Reasons() {
		if name := why.String(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("reason %d is called %q", why, name)
		} else {
			seen[name] = true
		}
	}
}
