package gateway

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// answer has the stand-in for a service answer requests on subj.
func answer[Q any](w *world, subj string, f func(q *Q) any) {
	w.t.Helper()
	_, err := w.nc.Subscribe(subj, func(m *nats.Msg) {
		var q Q
		if err := json.Unmarshal(m.Data, &q); err != nil {
			w.t.Errorf("%s: %v", subj, err)
		}
		body, err := json.Marshal(f(&q))
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			w.t.Errorf("%s: %v", subj, err)
		}
	})
	if err == nil {
		err = w.nc.Flush()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// centrifugoWorld is a gateway for Centrifugo's clients with stand-ins for the
// services that they need.
func centrifugoWorld(t *testing.T) *world {
	w := newWorldWith(t, testConfig(), Options{}, nil, app.App{
		ID: "1", Keys: []app.Key{{Key: "key"}}, Hooks: []app.Hook{{Name: "h", ForwardHeaders: []string{"X-Trace"}}},
		Centrifugo: app.Centrifugo{Enabled: true, RPC: []app.RPC{{Match: "*", Hook: "h"}}},
		Policies: []app.Policy{
			{Match: "log", History: app.History{Size: 10, TTL: time.Hour}, ReadHistory: app.Anyone},
			{Match: "room", Presence: true, ReadPresence: app.Anyone},
		},
	})
	w.makeJournal()
	answer(w, subject.AuthConnect, func(q *authz.Connect) any {
		return authz.Decision{Allow: q.Token == "good", Reason: authz.BadToken, Credentials: &authz.Credentials{User: "42", Info: `{"trace":"` + q.Headers["x-trace"] + `"}`}}
	})
	answer(w, subject.AuthSubscribe, func(q *authz.Subscribe) any {
		return authz.Decision{Allow: q.Token == q.Client.User+q.Channel, Reason: authz.Forbidden}
	})
	answer(w, subject.AuthRPC, func(q *authz.RPC) any { return authz.Decision{Allow: true, Reply: q.Data} })
	answer(w, subject.AuthRefresh, func(*authz.Refresh) any {
		return authz.Decision{Allow: true, Credentials: &authz.Credentials{User: "42", ExpireAt: time.Now().Unix() + 100}}
	})
	return w
}

func (w *world) centrifugo(token string) *client {
	w.t.Helper()
	c := w.dialTo(w.t.Context(), ws.Dialer{Header: ws.HandshakeHeaderString("X-Trace: abc\r\n")}, "ws://"+w.gw.Addr()+"/connection/websocket")
	c.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
	return c
}

func TestCentrifugoClient(t *testing.T) {
	w := centrifugoWorld(t)
	if code := w.centrifugo("bad").closeCode(); code != 3500 {
		t.Errorf("a bad token closes with %d, want 3500", code)
	}
	c := w.centrifugo("good")
	c.expect(`{"id":1,"connect":{"client":"`, `"ping":25,"pong":true}}`)
	c.send(`{"id":2,"subscribe":{"channel":"$news","token":"42$news"}}`)
	c.expect(`{"id":2,"subscribe":{}}`)
	c.send(`{"id":3,"subscribe":{"channel":"$other","token":"x"}}`)
	c.expect(`{"id":3,"error":{"code":103,`)
	w.publish("$news", `{"n":1}`)
	c.expect(`{"push":{"channel":"$news","pub":{"data":{"n":1},"offset":`, `"tags":{"event":"e"}}}}`)
	c.send(`{"id":4,"rpc":{"method":"m","data":[1]}}`)
	c.expect(`{"id":4,"rpc":{"data":[1]}}`)
	c.send(`{"id":5,"refresh":{"token":"t"}}`)
	c.expect(`{"id":5,"refresh":{`, `"expires":true,"ttl":`)
	op, err := json.Marshal(control.Command{App: "1", Operation: &control.Operation{Select: control.Select{User: "42"}, Unsubscribe: "$news"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.nc.Publish(subject.GatewayControl, op); err != nil {
		t.Fatal(err)
	}
	c.expect(`{"push":{"channel":"$news","unsubscribe":{"code":2000,`)
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	if code := c.closeCode(); code != 3001 {
		t.Errorf("a drain closes with %d, want 3001", code)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestCentrifugoReads(t *testing.T) {
	w := centrifugoWorld(t)
	pub := &message.Publication{Kind: message.Event, App: "1", Channel: "log", Data: []byte("1"), TimeMs: uint64(time.Now().UnixMilli())}
	stored := history.Entry{Position: message.At(7, 0), Publication: pub.Append(nil)}
	answer(w, "car.hist.*", func(q *history.Request) any {
		if q.Channel != "log" || q.Limit != 5 || !q.Oldest {
			t.Errorf("asked for %+v", q)
		}
		return history.Reply{Epoch: "e", Top: stored.Position, Entries: []history.Entry{stored}}
	})
	info := `{"user":"43","client":"9.9"}`
	answer(w, "car.pres.*.query", func(q *presence.Query) any {
		if q.After == "" { // in two pages
			return presence.Answer{More: true, Channels: []presence.ChannelInfo{{Name: "room", Members: []presence.MemberInfo{{ID: "8.8", RawID: `"8.8"`, Info: info}}}}}
		}
		return presence.Answer{Channels: []presence.ChannelInfo{{Name: "room", Members: []presence.MemberInfo{{ID: "9.9", RawID: `"9.9"`, Info: info}}}}}
	})
	c := w.centrifugo("good")
	c.send(`{"id":2,"history":{"channel":"log","limit":5}}`)
	c.expect(`{"id":2,"history":{"publications":[{"data":1,"offset":7168}],"epoch":"e","offset":7168}}`)
	c.send(`{"id":3,"presence_stats":{"channel":"room"}}`)
	c.expect(`{"id":3,"presence_stats":{"num_clients":2,"num_users":1}}`)
}
