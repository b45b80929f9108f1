package router_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/router"
)

// BenchmarkPath measures publications of 128 bytes through publisher, router,
// journal (file, one replica) or live subject, to a subscriber that decodes
// them; all in one process with the NATS server. Up to window publications
// are unanswered at a time.
func BenchmarkPath(b *testing.B) {
	for _, bb := range []struct {
		name, channel string
		window        int
	}{
		{"journal/bulk", "cache-%d", 32 << 10},
		{"journal/one-at-a-time", "cache-%d", 1},
		{"live/bulk", "plain-%d", 32 << 10},
		{"live/one-at-a-time", "plain-%d", 1},
	} {
		b.Run(bb.name, func(b *testing.B) { benchPath(b, bb.channel, bb.window) })
	}
}

func benchPath(b *testing.B, pattern string, window int) {
	srv := natstest.Server(b)
	start(b, srv.Deps(b, "r1", router.Role))
	conns := srv.Conns(b)
	p := newPublisher(b, conns.Req, "r1")
	var seen atomic.Int64
	target := make(chan struct{}, 1)
	live := make(chan *nats.Msg, 64<<10)
	sub, err := conns.Live.ChanSubscribe("car.live.*", live)
	if err != nil {
		b.Fatal(err)
	}
	if err := conns.Live.Flush(); err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	n := int64(b.N)
	go func() {
		defer close(done)
		for msg := range live {
			r := message.NewReader(msg.Data)
			var pub message.Publication
			for r.Next(&pub) {
				if seen.Add(1) == n {
					target <- struct{}{}
				}
			}
		}
	}()
	pubs := make([]message.Publication, 1000)
	for i := range pubs {
		pubs[i] = message.Publication{
			Kind: message.Event, App: appID, Channel: fmt.Sprintf(pattern, i), Event: "e", Data: make([]byte, 128),
		}
	}
	room := make(chan struct{}, window)
	var failed atomic.Int64
	receipt := func(r publisher.Receipt) {
		if r.Err != nil {
			if failed.Add(1) == 1 {
				b.Log(r.Err)
			}
		}
		<-room
	}
	b.ResetTimer()
	for i := range b.N {
		room <- struct{}{}
		p.Publish(&pubs[i%len(pubs)], receipt)
	}
	for range window {
		room <- struct{}{}
	}
	if f := failed.Load(); f > 0 {
		b.Fatalf("%d publications failed", f)
	}
	<-target
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publications/s")
	b.StopTimer()
	if err := sub.Unsubscribe(); err != nil {
		b.Fatal(err)
	}
	close(live)
	<-done
}

// BenchmarkLatency publishes 20,000 a second, 20 in each millisecond, and
// reports the time from Publish to the subscriber. b.N is milliseconds.
func BenchmarkLatency(b *testing.B) {
	for _, bb := range []struct{ name, channel string }{{"journal", "cache-%d"}, {"live", "plain-%d"}} {
		b.Run(bb.name, func(b *testing.B) { benchLatency(b, bb.channel, 20) })
	}
}

func benchLatency(b *testing.B, pattern string, perTick int) {
	srv := natstest.Server(b)
	start(b, srv.Deps(b, "r1", router.Role))
	conns := srv.Conns(b)
	p := newPublisher(b, conns.Req, "r1")
	took := make([]time.Duration, 0, b.N*perTick)
	all := make(chan struct{})
	begin := time.Now()
	sub, err := conns.Live.Subscribe("car.live.*", func(msg *nats.Msg) {
		now := time.Since(begin)
		r := message.NewReader(msg.Data)
		var pub message.Publication
		for r.Next(&pub) {
			took = append(took, now-time.Duration(binary.LittleEndian.Uint64(pub.Data)))
		}
		if len(took) == cap(took) {
			close(all)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := conns.Live.Flush(); err != nil {
		b.Fatal(err)
	}
	pub := message.Publication{Kind: message.Event, App: appID, Event: "e", Data: make([]byte, 128)}
	channels := make([]string, 1000)
	for i := range channels {
		channels[i] = fmt.Sprintf(pattern, i)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	for i := range b.N {
		for k := range perTick {
			pub.Channel = channels[(i*perTick+k)%len(channels)]
			binary.LittleEndian.PutUint64(pub.Data, uint64(time.Since(begin)))
			p.Publish(&pub, func(r publisher.Receipt) {
				if r.Err != nil {
					b.Error(r.Err)
				}
			})
		}
		<-tick.C
	}
	<-all
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "publications/s")
}
