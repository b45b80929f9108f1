package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/subject"
)

// question asks the gateway and gives what it says, all parts together.
func (w *world) question(body string) (all control.Answer) {
	w.t.Helper()
	inbox := w.nc.NewInbox()
	sub, err := w.nc.SubscribeSync(inbox)
	if err != nil {
		w.t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := w.nc.PublishMsg(&nats.Msg{Subject: subject.GatewayQuestion, Reply: inbox, Data: []byte(body)}); err != nil {
		w.t.Fatal(err)
	}
	for more := true; more; {
		msg, err := sub.NextMsg(patience)
		if err != nil {
			w.t.Fatal(err)
		}
		var a control.Answer
		if err := json.Unmarshal(msg.Data, &a); err != nil || a.Node != "gw" {
			w.t.Fatalf("answer %s: %v", msg.Data, err)
		}
		more = a.More
		a.Connections = append(all.Connections, a.Connections...)
		all = a
	}
	return all
}

func TestQuestions(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	for _, name := range []string{"news", "news", "other"} {
		subscribed(w, name)
	}
	list := w.question(`{"app":"1","connections":{"all":true},"limit":9,"numbers":true}`)
	var of []string
	for _, c := range list.Connections {
		of = append(of, strings.Join(c.Channels, " "))
		if c.Client == "" || c.Transport != "websocket" || c.Protocol != "pusher" {
			t.Errorf("%+v", c)
		}
	}
	slices.Sort(of)
	if !slices.Equal(of, []string{"news", "news", "other"}) || list.Cut {
		t.Errorf("connections to %q, cut %v", of, list.Cut)
	}
	if n := list.Numbers; n == nil || *n != (control.Numbers{Clients: 3, Channels: 2, Subscriptions: 3}) {
		t.Errorf("numbers %+v", n)
	}
	one := list.Connections[0].Client
	for _, tc := range []struct {
		name, body string
		n          int
		cut        bool
	}{
		{"one of them", `{"app":"1","connections":{"client":"` + one + `"},"limit":9}`, 1, false},
		{"of another app", `{"app":"2","connections":{"client":"` + one + `"},"limit":9}`, 0, false},
		{"all of another app", `{"app":"2","connections":{"all":true},"limit":9}`, 0, false},
		{"one of another user", `{"app":"1","connections":{"client":"` + one + `","user":"7"},"limit":9}`, 0, false},
		{"of a user", `{"app":"1","connections":{"user":"7"},"limit":9}`, 0, false},
		{"all but one", `{"app":"1","connections":{"all":true,"except":["` + one + `"]},"limit":9}`, 2, false},
		{"more than wanted", `{"app":"1","connections":{"all":true},"limit":2}`, 2, true},
		{"of another node", `{"app":"1","connections":{"client":"1.1"},"limit":2}`, 0, false},
		{"nobody", `{"app":"1","connections":{},"limit":2}`, 0, false},
	} {
		if a := w.question(tc.body); len(a.Connections) != tc.n || a.Cut != tc.cut || a.Error != "" || a.Numbers != nil {
			t.Errorf("%s: %+v, want %d", tc.name, a, tc.n)
		}
	}
	if a := w.question(`nonsense`); !strings.Contains(a.Error, "not a question") {
		t.Errorf("nonsense: %+v", a)
	}
}

// A list that is too long for one message comes in parts, each of which fits.
func TestAnswerInParts(t *testing.T) {
	a := control.Answer{Cut: true, Numbers: &control.Numbers{Clients: 1}}
	for i := range 100 {
		a.Connections = append(a.Connections, control.Connection{Client: fmt.Sprint(i), Meta: strings.Repeat("m", i*10)})
	}
	got := parts(a, 1500)
	n := 0
	for i, part := range got {
		last := i == len(got)-1
		if body, _ := json.Marshal(part.Connections); len(body) > 1500 || len(part.Connections) == 0 || part.More == last || part.Cut != last || (part.Numbers != nil) != last {
			t.Errorf("part %d of %d has %d bytes: %+v", i, len(got), len(body), part)
		}
		for _, c := range part.Connections {
			if c.Client != fmt.Sprint(n) {
				t.Fatalf("connection %s comes as number %d", c.Client, n)
			}
			n++
		}
	}
	if n != 100 || len(got) < 30 {
		t.Errorf("%d connections in %d parts", n, len(got))
	}
	if got := parts(control.Answer{}, 10); len(got) != 1 || got[0].More {
		t.Errorf("an empty answer: %+v", got)
	}
}
