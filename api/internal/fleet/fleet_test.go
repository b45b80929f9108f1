package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// members is a membership that does not change.
type members []cluster.Member

func (m members) Local() cluster.Member                      { return m[0] }
func (m members) Members() []cluster.Member                  { return m }
func (m members) Watch() (changed <-chan struct{}, _ func()) { return nil, func() {} }

func gateway(name string) cluster.Member {
	return cluster.Member{Node: name, Roles: []string{"gateway"}}
}

// answer has a gateway give these answers to every question.
func answer(t *testing.T, nc *nats.Conn, answers ...control.Answer) {
	t.Helper()
	_, err := nc.Subscribe(subject.GatewayQuestion, func(msg *nats.Msg) {
		var q control.Question
		if err := json.Unmarshal(msg.Data, &q); err != nil || q.App != "3" {
			t.Errorf("question %s: %v", msg.Data, err)
		}
		for _, a := range answers {
			body, _ := json.Marshal(a)
			_ = msg.Respond(body)
		}
	})
	if err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
}

func clients(of []control.Connection) (names []string) {
	for _, c := range of {
		names = append(names, c.Client)
	}
	return names
}

func TestConnections(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	answer(t, conns.Live,
		control.Answer{Node: "gw-1", More: true, Connections: []control.Connection{{Client: "3.1"}}},
		control.Answer{Node: "gw-1", Connections: []control.Connection{{Client: "1.1"}}})
	answer(t, conns.Live, control.Answer{Node: "gw-2", Connections: []control.Connection{{Client: "2.1", User: "u"}}})
	all := members{{Node: "api-1", Roles: []string{"api"}}, gateway("gw-1"), gateway("gw-2"), {Node: "gw-3", Roles: []string{"gateway"}, Away: true}}
	for _, tc := range []struct {
		listMax int
		want    string
		cut     bool
	}{{9, "1.1 2.1 3.1", false}, {2, "1.1 2.1", true}} {
		f := fleet.New(conns.Req, all, fleet.Config{TellTimeout: 5 * time.Second, AskTimeout: 5 * time.Second, ListMax: tc.listMax})
		list, cut, err := f.Connections(context.Background(), "3", control.Select{All: true})
		if got := strings.Join(clients(list), " "); err != nil || got != tc.want || cut != tc.cut {
			t.Errorf("%s, cut %v, %v; want %s, %v", got, cut, err, tc.want, tc.cut)
		}
	}
}

func TestNodes(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	answer(t, conns.Live, control.Answer{Node: "gw-1", Numbers: &control.Numbers{Clients: 7}})
	f := fleet.New(conns.Req, members{{Node: "api-1", Version: "v1"}, gateway("gw-1")},
		fleet.Config{TellTimeout: 5 * time.Second, AskTimeout: 5 * time.Second, ListMax: 9})
	nodes, err := f.Nodes(context.Background(), "3")
	if err != nil || len(nodes) != 2 || nodes[0].Version != "v1" || nodes[0].Numbers != nil || nodes[1].Numbers == nil || nodes[1].Numbers.Clients != 7 {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// A gateway that does not answer, or can't, makes the whole answer an error:
// half a list would be taken for all of it.
func TestUnreachable(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	cfg := fleet.Config{TellTimeout: 5 * time.Second, AskTimeout: 200 * time.Millisecond, ListMax: 9}
	f := fleet.New(conns.Req, members{gateway("gw-1"), gateway("gw-2")}, cfg)
	answer(t, conns.Live, control.Answer{Node: "gw-1"})
	_, _, err := f.Connections(context.Background(), "3", control.Select{All: true})
	if !errors.Is(err, fleet.ErrUnreachable) || !strings.Contains(err.Error(), "gw-2") || strings.Contains(err.Error(), "gw-1,") {
		t.Errorf("without gw-2: %v", err)
	}
	answer(t, conns.Live, control.Answer{Node: "gw-2", Error: "too busy"})
	if _, err = f.Nodes(context.Background(), "3"); !errors.Is(err, fleet.ErrUnreachable) || !strings.Contains(err.Error(), "too busy") {
		t.Errorf("with an error of gw-2: %v", err)
	}
}

func TestTell(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	sub, err := conns.Live.SubscribeSync(subject.GatewayControl)
	if err != nil || conns.Live.Flush() != nil {
		t.Fatal(err)
	}
	f := fleet.New(conns.Req, members{gateway("gw-1")}, fleet.Config{TellTimeout: 5 * time.Second, AskTimeout: 5 * time.Second, ListMax: 9})
	if err := f.Tell(context.Background(), control.Command{App: "3", TerminateUser: "u"}); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.NextMsg(5 * time.Second)
	if err != nil || string(msg.Data) != `{"app":"3","terminate_user":"u"}` {
		t.Errorf("%v, %v", msg, err)
	}
}
