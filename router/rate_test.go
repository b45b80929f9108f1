package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/router"
)

// Requests of an app that publishes too fast are refused for now, with the
// limit, publication by publication; those of others are not.
func TestDocumentsOverTheRate(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	start(t, deps)
	nc := srv.Conns(t).Req
	// More than a second's worth is taken whole when nothing was published
	// before, and has to be paid for.
	const many = 10 * slowRate
	batch := `{"batch":[` + strings.Repeat(`{"channel":"cache-r","data":1},`, many-1) + `{"channel":"cache-r","data":1}]}`
	for i, r := range requestDoc(t, nc, slowID, batch).Receipts {
		if r.Error != "" {
			t.Fatalf("receipt %d: %+v", i, r)
		}
	}
	refused := requestDoc(t, nc, slowID, `{"channels":["cache-r","cache-s"],"data":1}`).Receipts
	if len(refused) != 2 {
		t.Fatalf("got %+v, want two receipts", refused)
	}
	for _, r := range refused {
		if !r.Retry || r.Code != int(publisher.Busy) ||
			!strings.Contains(r.Error, "app 1003 may publish 4 messages a second in requests to one router (limits.publishes_per_second), try again in ") {
			t.Errorf("refused with %+v", r)
		}
	}
	if r := requestDoc(t, nc, appID, `{"channel":"cache-r","data":1}`).Receipts; len(r) != 1 || r[0].Error != "" {
		t.Errorf("another app got %+v", r)
	}
	if n := metricSum(t, deps, "carillon_router_publications_refused_total", "publish_rate"); n != 2 {
		t.Errorf("%v are counted as refused, want 2", n)
	}
}

// Plain messages of an app that publishes too fast wait in the queue, in their
// order, over a restart of the router too; those of others pass by.
func TestPlainOverTheRate(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	_, stop := start(t, deps)
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	const n = 4 * slowRate
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		slow := &nats.Msg{Subject: "car.in." + slowID + ".cache-slow", Data: []byte(want[i])}
		for _, msg := range []*nats.Msg{slow, plainMsg("cache-quick", want[i])} {
			if _, err := js.PublishMsg(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the other app's are delivered", func() bool { return len(tp.of("cache-quick")) == n })
	if waiting := ingestState(t, js); waiting == 0 {
		t.Error("none waits in the queue")
	}
	if delayed := metricSum(t, deps, "carillon_router_plain_delayed_total"); delayed == 0 {
		t.Error("none is counted as delayed")
	}
	stop()
	start(t, srv.Deps(t, "r1", router.Role))
	eventually(t, "all are delivered", func() bool { return len(tp.of("cache-slow")) >= n })
	if got := tp.of("cache-slow"); !slices.Equal(got, want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	eventually(t, "the queue is empty", func() bool { return ingestState(t, js) == 0 })
}
