package natsconn_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natstest"
)

// startRequester runs a requester until the test ends or stop is called.
func startRequester(t testing.TB, nc *nats.Conn, maxPending int) (r *natsconn.Requester, stop func()) {
	t.Helper()
	r, err := natsconn.NewRequester(nc, maxPending)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return r, stop
}

type answer struct {
	reply string
	err   error
}

// ask waits for the one callback of a request.
func ask(t testing.TB, r *natsconn.Requester, subject, data string, timeout time.Duration) answer {
	t.Helper()
	got := make(chan answer, 2)
	r.Ask(subject, []byte(data), timeout, func(reply []byte, err error) { got <- answer{string(reply), err} })
	return wait(t, got)
}

func wait[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came in 20 s")
		panic("unreachable")
	}
}

func echo(t testing.TB, nc *nats.Conn, subject string) {
	t.Helper()
	if _, err := nc.Subscribe(subject, func(m *nats.Msg) { m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestRequesterAnswers(t *testing.T) {
	srv := natstest.Server(t)
	conns, responder := srv.Conns(t), srv.Conns(t)
	echo(t, responder.Req, "echo")
	if _, err := responder.Req.SubscribeSync("silent"); err != nil {
		t.Fatal(err)
	}
	svc, err := micro.AddService(responder.Req, micro.Config{Name: "failing", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	err = svc.AddEndpoint("fail", micro.HandlerFunc(func(req micro.Request) { req.Error("404", "no such thing", nil) }))
	if err != nil {
		t.Fatal(err)
	}
	responder.Req.Flush()
	r, _ := startRequester(t, conns.Req, 16)

	if got := ask(t, r, "echo", "hi", time.Second*10); got.err != nil || got.reply != "hi" {
		t.Errorf("echo: %+v", got)
	}
	if got := ask(t, r, "nobody", "", 10*time.Second); !errors.Is(got.err, natsconn.ErrNoResponders) {
		t.Errorf("nobody: %+v, want ErrNoResponders", got)
	}
	if got := ask(t, r, "silent", "", 30*time.Millisecond); !errors.Is(got.err, natsconn.ErrTimeout) {
		t.Errorf("silent: %+v, want ErrTimeout", got)
	}
	if got := ask(t, r, "silent", "", -time.Second); !errors.Is(got.err, natsconn.ErrTimeout) {
		t.Errorf("deadline in the past: %+v, want ErrTimeout", got)
	}
	if got := ask(t, r, "not a subject", "", time.Second); !errors.Is(got.err, nats.ErrBadSubject) {
		t.Errorf("bad subject: %+v, want ErrBadSubject", got)
	}
	var service *natsconn.ServiceError
	if got := ask(t, r, "fail", "", 10*time.Second); !errors.As(got.err, &service) || service.Code != "404" {
		t.Errorf("failing service: %+v, want a ServiceError 404", got)
	}
	if n := r.Pending(); n != 0 {
		t.Errorf("%d requests pending after all answers", n)
	}
}

func TestRequesterHeader(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	sub, err := conns.Live.Subscribe("headed", func(m *nats.Msg) { m.Respond([]byte(m.Header.Get("traceparent"))) })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	conns.Live.Flush()
	r, _ := startRequester(t, conns.Req, 16)
	got := make(chan answer, 1)
	r.AskHeader("headed", nats.Header{"traceparent": {"tp"}}, nil, 10*time.Second, func(reply []byte, err error) {
		got <- answer{string(reply), err}
	})
	if a := wait(t, got); a.err != nil || a.reply != "tp" {
		t.Errorf("got %+v, want the header back", a)
	}
}

func TestRequesterBusy(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	if _, err := conns.Live.SubscribeSync("silent"); err != nil {
		t.Fatal(err)
	}
	conns.Live.Flush()
	r, _ := startRequester(t, conns.Req, 4)
	got := make(chan error, 20)
	for range 10 {
		r.Ask("silent", nil, time.Minute, func(_ []byte, err error) { got <- err })
	}
	for range 6 {
		if err := wait(t, got); !errors.Is(err, natsconn.ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
	}
	if n := r.Pending(); n != 4 {
		t.Errorf("%d pending, want 4", n)
	}
}

// TestRequesterExactlyOnce mixes replies, timeouts, missing responders and refusals and stops in the middle.
func TestRequesterExactlyOnce(t *testing.T) {
	srv := natstest.Server(t)
	conns, responder := srv.Conns(t), srv.Conns(t)
	echo(t, responder.Req, "echo.*")
	if _, err := responder.Req.SubscribeSync("silent.*"); err != nil {
		t.Fatal(err)
	}
	responder.Req.Flush()
	r, stop := startRequester(t, conns.Req, 256)

	const askers, each = 4, 3000
	var mu sync.Mutex
	calls := make(map[string]int)
	var bad []string
	var asked sync.WaitGroup
	half := make(chan struct{})
	for a := range askers {
		asked.Go(func() {
			for i := range each {
				if a == 0 && i == each/2 {
					close(half)
				}
				subject := []string{"echo.x", "silent.x", "nobody.x"}[i%3]
				key := strconv.Itoa(a) + "/" + strconv.Itoa(i)
				r.Ask(subject, []byte(key), time.Duration(i%7)*5*time.Millisecond, func(reply []byte, err error) {
					mu.Lock()
					defer mu.Unlock()
					calls[key]++
					if err == nil && string(reply) != key {
						bad = append(bad, fmt.Sprintf("%s got the reply of %s", key, reply))
					}
				})
			}
		})
	}
	<-half
	stop()
	asked.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(calls) != askers*each {
		t.Errorf("%d requests were called back, want %d", len(calls), askers*each)
	}
	for key, n := range calls {
		if n != 1 {
			t.Errorf("%s: %d callbacks", key, n)
		}
	}
	if len(bad) > 0 {
		t.Errorf("%d wrong replies, the first: %s", len(bad), bad[0])
	}
}

func TestRequesterClosed(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	if _, err := conns.Live.SubscribeSync("silent"); err != nil {
		t.Fatal(err)
	}
	conns.Live.Flush()
	r, stop := startRequester(t, conns.Req, 8)
	got := make(chan error, 2)
	r.Ask("silent", nil, time.Minute, func(_ []byte, err error) { got <- err })
	stop()
	if err := wait(t, got); !errors.Is(err, natsconn.ErrClosed) {
		t.Errorf("pending at the end: %v, want ErrClosed", err)
	}
	r.Ask("silent", nil, time.Minute, func(_ []byte, err error) { got <- err })
	if err := wait(t, got); !errors.Is(err, natsconn.ErrClosed) {
		t.Errorf("asked after the end: %v, want ErrClosed", err)
	}
}

// TestRequesterLongDeadline asks with a deadline of more than a turn of the wheel and one that shares its bucket.
func TestRequesterLongDeadline(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	if _, err := conns.Live.SubscribeSync("silent"); err != nil {
		t.Fatal(err)
	}
	conns.Live.Flush()
	r, _ := startRequester(t, conns.Req, 8)
	long, short := make(chan error, 1), make(chan error, 1)
	r.Ask("silent", nil, 10240*time.Millisecond+40*time.Millisecond, func(_ []byte, err error) { long <- err })
	r.Ask("silent", nil, 40*time.Millisecond, func(_ []byte, err error) { short <- err })
	if err := wait(t, short); !errors.Is(err, natsconn.ErrTimeout) {
		t.Errorf("short: %v, want ErrTimeout", err)
	}
	select {
	case err := <-long:
		t.Errorf("the long one ended with the short one: %v", err)
	default:
	}
	if n := r.Pending(); n != 1 {
		t.Errorf("%d pending, want the long one", n)
	}
}

func TestRequesterNeedsRoom(t *testing.T) {
	srv := natstest.Server(t)
	if _, err := natsconn.NewRequester(srv.Conns(t).Req, 0); err == nil {
		t.Error("a requester without room was made")
	}
}

func BenchmarkRequester(b *testing.B) {
	srv := natstest.Server(b)
	conns, responder := srv.Conns(b), srv.Conns(b)
	echo(b, responder.Req, "echo")
	r, _ := startRequester(b, conns.Req, 1<<12)
	data := make([]byte, 64)
	window := make(chan struct{}, 1<<11)
	var failed error
	done := func(_ []byte, err error) {
		if err != nil {
			failed = err
		}
		<-window
	}
	for b.Loop() {
		window <- struct{}{}
		r.Ask("echo", data, 10*time.Second, done)
	}
	for range cap(window) {
		window <- struct{}{}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "asks/s")
	if failed != nil {
		b.Fatal(failed)
	}
}

// BenchmarkAsk is the cost to the caller and the requester without anyone who answers: a request that nobody serves is still two messages.
func BenchmarkAskNoResponders(b *testing.B) {
	srv := natstest.Server(b)
	conns := srv.Conns(b)
	r, _ := startRequester(b, conns.Req, 1<<12)
	window := make(chan struct{}, 1<<11)
	done := func([]byte, error) { <-window }
	b.ReportAllocs()
	for b.Loop() {
		window <- struct{}{}
		r.Ask("nobody", nil, 10*time.Second, done)
	}
	for range cap(window) {
		window <- struct{}{}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "asks/s")
}

// TestRequesterBurst has more replies waiting than Run takes in one go: each must be taken.
func TestRequesterBurst(t *testing.T) {
	srv := natstest.Server(t)
	conns, responder := srv.Conns(t), srv.Conns(t)
	echo(t, responder.Req, "echo")
	const n = 20_000
	r, _ := startRequester(t, conns.Req, n)
	got := make(chan error, n)
	for range n {
		r.Ask("echo", nil, 15*time.Second, func(_ []byte, err error) { got <- err })
	}
	for i := range n {
		if err := wait(t, got); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
}
