package centrifugoapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// everything stands in for the cluster: it takes and knows everything.
type everything struct{ t *testing.T }

func (e everything) PublishWait(_ context.Context, pubs []*message.Publication) []publisher.Receipt {
	for _, p := range pubs {
		if p.App != "1" || p.Channel == "" || p.Kind != message.Event && p.Kind != message.HistoryRemoved {
			e.t.Errorf("published %+v", p)
		}
	}
	return make([]publisher.Receipt, len(pubs))
}

func (everything) Channel(_ context.Context, _, name string, _ bool) (presence.ChannelInfo, bool, error) {
	return presence.ChannelInfo{Name: name, Members: []presence.MemberInfo{{ID: "1", Info: name}}}, false, nil
}

func (e everything) Page(_ context.Context, _ string, q occupancy.ListQuery) ([]presence.ChannelInfo, bool, bool, error) {
	if q.Limit < 1 || q.Limit > ChannelsMax {
		e.t.Errorf("a page of %d", q.Limit)
	}
	return []presence.ChannelInfo{{Name: q.Prefix}}, true, false, nil
}

func (e everything) History(_ context.Context, _, name string, q occupancy.HistoryQuery) (occupancy.Past, error) {
	if q.Limit < 0 || q.Limit > HistoryMax {
		e.t.Errorf("history of %d", q.Limit)
	}
	return occupancy.Past{Publications: []occupancy.Kept{{Position: q.Since, Publication: &message.Publication{Data: []byte(name), Event: name}}}}, nil
}

func (everything) Saw(string, string, string, message.Position) {}

func (e everything) Tell(_ context.Context, cmd control.Command) error {
	if op := cmd.Operation; op == nil || op.User == "" && op.Client == "" && !op.All {
		e.t.Errorf("command %+v", cmd)
	}
	return nil
}

func (everything) Connections(_ context.Context, _ string, of control.Select) ([]control.Connection, bool, error) {
	return []control.Connection{{Client: of.User, Channels: []string{of.User}}}, false, nil
}

func (everything) Nodes(context.Context, string) ([]fleet.Node, error) {
	return make([]fleet.Node, 1), nil
}

func (everything) RPC(_ context.Context, call authz.RPC) (authz.Decision, error) {
	return authz.Decision{Allow: true, Reply: call.Data}, nil
}

// FuzzHandler sends requests of any form: each is answered, with JSON.
func FuzzHandler(f *testing.F) {
	for _, seed := range [][2]string{
		{"publish", `{"channel":"news:1","data":{"a":[1]},"tags":{"a":"b"}}`},
		{"broadcast", `{"channels":["a","b:c"],"b64data":"AAE="}`},
		{"subscribe", `{"channel":"a","user":"u","override":{"presence":{"value":true}},"recover_since":{"offset":1}}`},
		{"disconnect", `{"all_users":true,"disconnect":{"code":4000,"reason":"r"}}`},
		{"history", `{"channel":"news:1","limit":-1,"since":{"offset":5},"reverse":true}`},
		{"presence", `{"channel":"presence-a"}`},
		{"channels", `{"pattern":"a*?","limit":5}`},
		{"connections", `{"user":"u"}`},
		{"rpc", `{"method":"m","params":[1]}`},
		{"batch", `{"commands":[{"publish":{"channel":"a","data":1}},{"info":{}},null,{}],"parallel":true}`},
		{"", "{\"method\":\"info\"}\n{\"method\":\"refresh\",\"params\":{\"user\":\"u\"}}"},
		{"map_publish", "{}"},
	} {
		f.Add(seed[0], []byte(seed[1]), len(seed[1])%2 == 0)
	}
	f.Fuzz(func(t *testing.T, method string, body []byte, transport bool) {
		if strings.ContainsAny(method, " ?#%\x00") || strings.ContainsFunc(method, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		apps, err := app.NewRegistry([]app.App{{
			ID: "1", Keys: []app.Key{{Key: "k"}}, Hooks: []app.Hook{{Name: "h", URL: "http://127.0.0.1:1/"}},
			Policies: []app.Policy{{Match: "news:*", History: app.History{Size: 1, TTL: time.Minute}, Presence: true}},
			Centrifugo: app.Centrifugo{
				APIKeys: []app.APIKey{{Secret: "key"}}, RPC: []app.RPC{{Match: "*", Hook: "h"}}, KnownNamespaces: true,
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		all := everything{t}
		core := New(Deps{
			Sender: all, Reader: all, Fleet: all, Hooks: all, Rates: rate.New(time.Now()), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		h := NewHandler(HTTPConfig{BodyMax: 10_000}, core, NewKeys(apps), noop.NewTracerProvider(), telemetry.NewMetrics())
		r := httptest.NewRequest(http.MethodPost, "/api/"+method, strings.NewReader(string(body)))
		r.Header.Set("X-API-Key", "key")
		if transport {
			r.Header.Set("X-Centrifugo-Error-Mode", "transport")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		for line := range strings.SplitSeq(w.Body.String(), "\n") {
			if !json.Valid([]byte(line)) {
				t.Errorf("%d %q", w.Code, w.Body.String())
			}
		}
		if w.Code == http.StatusInternalServerError && !strings.Contains(w.Body.String(), "can't be written as JSON") {
			t.Errorf("%d %q", w.Code, w.Body.String())
		}
	})
}
