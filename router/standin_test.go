package router_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/router"
)

func testApps(t testing.TB) *app.Registry {
	t.Helper()
	apps, err := app.NewRegistry([]app.App{
		{
			ID: appID, Keys: []app.Key{{Key: "k", Secret: "s"}},
			Policies: []app.Policy{{Match: "log-*", History: app.History{Size: 5, TTL: time.Hour}}},
			Webhooks: []app.Webhook{{URL: "http://127.0.0.1:1/", Events: []string{hook.ClientEvent, hook.CacheMiss}}},
		},
		{ID: "1002", Disabled: true, Keys: []app.Key{{Key: "k2", Secret: "s"}}},
		{ID: slowID, Keys: []app.Key{{Key: "k3", Secret: "s"}}, Limits: app.Limits{PublishesPerSecond: slowRate}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return apps.Public()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	await.True(t, what, ok)
}

// start runs a router until the returned function is called or the test ends.
func start(t testing.TB, deps service.Deps, change ...func(*router.Config)) (*router.Router, func()) {
	t.Helper()
	cfg := router.DefaultConfig()
	cfg.AckTimeout = 300 * time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	r, err := router.New(cfg, deps, testApps(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("router ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	eventually(t, "router ready", func() bool { return r.Ready() == nil })
	return r, stop
}

func newPublisher(t testing.TB, nc *nats.Conn, routers ...string) *publisher.Publisher {
	t.Helper()
	p := publisher.New(publisher.Config{Partitions: partitions}, nc, func() []string { return routers }, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("publisher ended with %v", err)
		}
	})
	return p
}

func event(channel, data string) *message.Publication {
	return &message.Publication{Kind: message.Event, App: appID, Channel: channel, Event: "e", Data: []byte(data)}
}

func publishOne(t testing.TB, p *publisher.Publisher, pub *message.Publication) publisher.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.PublishWait(ctx, []*message.Publication{pub})[0]
}

// publishUntil publishes until it is taken: the router may just be coming
// back.
func publishUntil(t testing.TB, p *publisher.Publisher, pub *message.Publication) publisher.Receipt {
	t.Helper()
	var r publisher.Receipt
	eventually(t, "publication taken", func() bool {
		r = publishOne(t, p, pub)
		return r.Err == nil
	})
	return r
}

// tap collects what gateways would get, per channel.
type tap struct {
	mu   sync.Mutex
	data map[string][]string
	pubs map[string]message.Publication
	seqs []string
}

func listen(t testing.TB, nc *nats.Conn) *tap {
	t.Helper()
	tp := &tap{data: map[string][]string{}, pubs: map[string]message.Publication{}}
	sub, err := nc.Subscribe("car.live.*", tp.take)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	return tp
}

func (tp *tap) take(msg *nats.Msg) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.seqs = append(tp.seqs, msg.Header.Get("Nats-Sequence"))
	r := message.NewReader(msg.Data)
	var pub message.Publication
	for r.Next(&pub) {
		tp.data[pub.Channel] = append(tp.data[pub.Channel], string(pub.Data))
		tp.pubs[pub.Channel] = pub
	}
}

func (tp *tap) of(channel string) []string {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return slices.Clone(tp.data[channel])
}

// left is the stamp of a channel's last publication.
func (tp *tap) left(channel string) uint64 {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return tp.pubs[channel].Left
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}
