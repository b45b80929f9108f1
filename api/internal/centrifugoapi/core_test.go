package centrifugoapi

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestPattern(t *testing.T) {
	for _, tc := range []struct {
		p      pattern
		prefix string
		yes    string
		no     string
	}{
		{"", "", "a ab #1 x:y", ""},
		{"*", "", "a ab #1 x:y", ""},
		{"news*", "news", "news news:1 newsroom", ""},
		{"news", "news", "news", "news:1 newsroom"},
		{"news:*:x", "news:", "news:1:x news::x news:x:x", "news:1 news:1:xy news:1:y"},
		{"a?c", "a", "abc a?c", "ac abbc abcd"},
		{"*a*b*", "", "ab xaxbx", "ba"},
	} {
		if got := tc.p.prefix(); got != tc.prefix {
			t.Errorf("prefix of %q is %q, want %q", tc.p, got, tc.prefix)
		}
		keep := tc.p.keep()
		for _, name := range strings.Fields(tc.yes) {
			if !strings.HasPrefix(name, tc.prefix) || keep != nil && !keep(name) {
				t.Errorf("%q does not match %q", tc.p, name)
			}
		}
		for _, name := range strings.Fields(tc.no) {
			if strings.HasPrefix(name, tc.prefix) && (keep == nil || keep(name)) {
				t.Errorf("%q matches %q", tc.p, name)
			}
		}
	}
}

// Commands of a batch that nobody waits for any more are not done.
func TestBatchEnds(t *testing.T) {
	for _, parallel := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var done atomic.Int32
		commands := make([]command, 3*atOnce)
		for i := range commands {
			commands[i] = func(ctx context.Context) (any, error) {
				done.Add(1)
				cancel()
				<-ctx.Done()
				return "done", nil
			}
		}
		replies, err := batch(ctx, commands, parallel)
		if err != nil || len(replies) != len(commands) || done.Load() > atOnce {
			t.Fatalf("%d replies, %v, %d commands were done", len(replies), err, done.Load())
		}
		if last := replies[len(replies)-1]; last.err == nil || last.err.Code != codeInternal {
			t.Errorf("the last was answered %+v, want error %d", last, codeInternal)
		}
	}
}

// FuzzPattern compares with a regular expression.
func FuzzPattern(f *testing.F) {
	f.Add("a*b?c", "aXbYc")
	f.Add("**", "")
	f.Add("?*", "ab")
	f.Fuzz(func(t *testing.T, p, name string) {
		if p == "" || len(p) > 50 || len(name) > 50 { // "" is all names
			return
		}
		var expr strings.Builder
		for i := range len(p) {
			switch c := p[i]; c {
			case '*':
				expr.WriteString(`[\x00-\x{10ffff}]*`)
			case '?':
				expr.WriteString(`[\x00-\x{10ffff}]`)
			default:
				if c >= 0x80 { // ? is one byte here and one rune there
					return
				}
				expr.WriteString(regexp.QuoteMeta(string(rune(c))))
			}
		}
		for i := range len(name) {
			if name[i] >= 0x80 {
				return
			}
		}
		want := regexp.MustCompile(`^(?:` + expr.String() + `)$`).MatchString(name)
		keep := pattern(p).keep()
		got := strings.HasPrefix(name, pattern(p).prefix()) && (keep == nil || keep(name))
		if got != want {
			t.Errorf("%q and %q: %v, want %v", p, name, got, want)
		}
	})
}

// The keys are those of the apps as they are now.
func TestKeysFollowTheApps(t *testing.T) {
	one := func(id string, keys ...string) app.App {
		a := app.App{ID: id, Keys: []app.Key{{Key: "k" + id, Secret: "s"}}}
		for _, k := range keys {
			a.Centrifugo.APIKeys = append(a.Centrifugo.APIKeys, app.APIKey{Secret: k})
		}
		return a
	}
	apps, err := app.NewRegistry([]app.App{one("1", "old", "other"), one("2", "two"), one("3")})
	if err != nil {
		t.Fatal(err)
	}
	keys := NewKeys(apps)
	id := func(key string) string {
		if a := keys.App(key); a != nil {
			return a.ID
		}
		return ""
	}
	check := func(want map[string]string) {
		t.Helper()
		for key, app := range want {
			if got := id(key); got != app {
				t.Errorf("key %q is of app %q, want %q", key, got, app)
			}
		}
	}
	check(map[string]string{"old": "1", "other": "1", "two": "2", "": "", "k1": "", "ol": "", "old ": ""})
	if err := apps.Replace([]app.App{one("1", "new"), one("2", "two"), one("3")}); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"old": "", "new": "1", "two": "2"})
	if err := apps.Replace(nil); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"new": ""})
}

// Replies are in the order of their commands; one after the other means that
// none begins before the one before has ended.
func TestBatch(t *testing.T) {
	for _, parallel := range []bool{false, true} {
		var underway, most atomic.Int32
		var began atomic.Int32
		commands := make([]command, 100)
		gate := make(chan struct{})
		for i := range commands {
			commands[i] = func(context.Context) (any, error) {
				n := underway.Add(1)
				defer underway.Add(-1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				if began.Add(1) == atOnce {
					close(gate)
				}
				if parallel {
					<-gate // until as many run as may
				}
				if i%3 == 0 {
					return nil, badRequest("%d", i)
				}
				return i, nil
			}
		}
		replies, err := batch(t.Context(), commands, parallel)
		if err != nil || len(replies) != len(commands) {
			t.Fatalf("%d replies, %v", len(replies), err)
		}
		for i, r := range replies {
			if (r.err != nil) != (i%3 == 0) || r.err == nil && r.result != i || r.err != nil && !strings.Contains(r.err.Message, fmt.Sprint(i)) {
				t.Errorf("reply %d is %+v", i, r)
			}
		}
		if want := map[bool]int32{false: 1, true: atOnce}[parallel]; most.Load() != want {
			t.Errorf("parallel %v: %d at a time, want %d", parallel, most.Load(), want)
		}
	}
}

func TestMethodName(t *testing.T) {
	for full, want := range map[string]string{
		"/centrifugal.centrifugo.api.CentrifugoApi/PresenceStats": "presence_stats", "/x/RPC": "rpc", "/x/Info": "info", "Publish": "publish", "": "",
	} {
		if got := methodName(full); got != want {
			t.Errorf("%s is %s, want %s", full, got, want)
		}
	}
}
