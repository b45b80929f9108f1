package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// Only so many requests are under way; who finds the line full, or no time
// left, is told at once.
func TestConcurrency(t *testing.T) {
	w := newWorld(t)
	b := w.backends["http"]
	release := make(chan struct{})
	b.says(reply{hang: release, body: `{}`})
	h := &app.Hook{Name: "one", URL: b.url, Concurrency: 2, Timeout: 20 * time.Second}
	var wait sync.WaitGroup
	var failed atomic.Int32
	ask := func() {
		var out Response[ConnectResult]
		if w.client.Ask(t.Context(), connectCall(h), &out) != nil {
			failed.Add(1)
		}
	}
	for range 2 + 2*inLine {
		wait.Go(ask)
	}
	e := w.client.endpoint(connectCall(h))
	await.True(t, "all to wait", func() bool { return e.waiting.Load() == 2*inLine && len(b.requests()) == 2 })
	ask()
	if failed.Load() != 1 || w.count(h, full) != 1 {
		t.Errorf("%d failed, %d of them found the line full; want one", failed.Load(), w.count(h, full))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.client.Ask(ctx, connectCall(h), &Response[ConnectResult]{}); err == nil {
		t.Error("an answer for who has gone")
	}
	close(release)
	wait.Wait()
	if n := len(b.requests()); n != 2+2*inLine || failed.Load() != 1 {
		t.Errorf("%d requests, %d failed", n, failed.Load())
	}
}

// A hook that fails is left alone, and tried again.
func TestBreakerOpens(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		if way == "nats" {
			continue // has no status for it
		}
		h := &app.Hook{Name: way, URL: b.url}
		ask := func() error { return w.client.Ask(t.Context(), connectCall(h), &Response[ConnectResult]{}) }
		b.says(reply{status: 503})
		for range breakAfter {
			_ = ask()
		}
		if err := ask(); err == nil || w.count(h, open) != 1 || len(b.requests()) != breakAfter {
			t.Errorf("%s: %v after %d requests", way, err, len(b.requests()))
		}
		if got := testutil.ToFloat64(w.client.metrics.open.WithLabelValues("1", way)); got != 1 {
			t.Errorf("%s: the gauge says %v", way, got)
		}
		w.pass(breakFirst)
		_ = ask() // the trial fails
		_ = ask()
		w.pass(breakFirst)
		_ = ask()
		if n := len(b.requests()); n != breakAfter+1 {
			t.Errorf("%s: %d requests, want %d", way, n, breakAfter+1)
		}
		b.says(reply{body: `{}`})
		w.pass(breakFirst)
		for range 2 {
			if err := ask(); err != nil {
				t.Errorf("%s: back again: %v", way, err)
			}
		}
	}
	if lines := strings.Count(w.log.String(), "\n"); lines > 4 {
		t.Errorf("%d lines were logged:\n%s", lines, w.log)
	}
}

// A connection to a machine that went away without a word is given up.
func TestDeadConnection(t *testing.T) {
	w := newWorld(t)
	b := w.backends["grpc"]
	b.says(reply{body: `{}`})
	link := newLink(t, strings.TrimPrefix(b.url, "grpc://"))
	h := &app.Hook{Name: "far", URL: "grpc://" + link.addr(), Timeout: 20 * time.Second}
	ask := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return w.client.Ask(ctx, connectCall(h), &Response[ConnectResult]{})
	}
	if err := ask(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	link.silence()
	for range breakAfter {
		if err := ask(20 * time.Millisecond); err == nil {
			t.Fatal("an answer through a dead connection")
		}
	}
	w.pass(breakFirst)
	if err := ask(20 * time.Second); err != nil {
		t.Errorf("after the dead connection: %v", err)
	}
}

func TestCache(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		h := &app.Hook{Name: way, URL: b.url, Cache: time.Minute, ForwardHeaders: []string{"cookie"}}
		ask := func(kind Kind, client, user, cookie string) string {
			t.Helper()
			c := &Call{App: "1", Hook: h, Kind: kind, Client: &authz.Client{Headers: map[string]string{"cookie": cookie}}}
			who := From{Client: client, Transport: "websocket", Encoding: "json"}
			if kind == Publish {
				c.Request = &PublishRequest{From: who, User: user, Channel: "x"}
				_ = w.client.Ask(t.Context(), c, &Response[PublishResult]{})
				return ""
			}
			c.Request = &SubscribeRequest{From: who, User: user, Channel: "x"}
			var out Response[SubscribeResult]
			if err := w.client.Ask(t.Context(), c, &out); err != nil || out.Result == nil {
				return "none"
			}
			if from := c.Request.from(); from.Client != client || from.Transport != "websocket" {
				t.Errorf("the request was changed: %+v", from)
			}
			return string(out.Result.Info)
		}
		check := func(step string, got, want string, requests int) {
			t.Helper()
			if n := len(b.requests()); got != want || n != requests {
				t.Errorf("%s, %s: %q after %d requests, want %q after %d", way, step, got, n, want, requests)
			}
		}
		b.says(reply{body: `{"result":{"info":1}}`})
		check("first", ask(Subscribe, "c1", "7", "a"), "1", 1)
		b.says(reply{body: `{"result":{"info":2}}`})
		check("another connection", ask(Subscribe, "c2", "7", "a"), "1", 1)
		check("another user", ask(Subscribe, "c1", "8", "a"), "2", 2)
		check("another cookie", ask(Subscribe, "c1", "7", "b"), "2", 3)
		w.pass(time.Minute)
		check("too old", ask(Subscribe, "c1", "7", "a"), "2", 4)
		b.says(reply{status: 500})
		check("no answer", ask(Subscribe, "c1", "9", "a"), "none", 5)
		check("which is not kept", ask(Subscribe, "c1", "9", "a"), "none", 6)
		b.says(reply{body: `{"error":{"code":1,"temporary":true}}`})
		check("not now", ask(Subscribe, "c1", "9", "a"), "none", 7)
		check("which is not kept either", ask(Subscribe, "c1", "9", "a"), "none", 8)
		b.says(reply{body: `{"error":{"code":1}}`})
		check("no", ask(Subscribe, "c1", "9", "a"), "none", 9)
		check("which is", ask(Subscribe, "c1", "9", "a"), "none", 9)
		check("publish", ask(Publish, "c1", "9", "a"), "", 10)
		check("publish is always asked", ask(Publish, "c1", "9", "a"), "", 11)
		changed := *h
		changed.IncludeMeta = true
		h = &changed
		check("other settings", ask(Subscribe, "c1", "7", "a"), "none", 12)
	}
}

// An answer is not kept for longer than what it gives, nor when it makes no
// sense: clients that come back would get the same again and again.
func TestCacheEnds(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		h := &app.Hook{Name: way, URL: b.url, Cache: time.Minute}
		ask := func(step string, kind Kind, requests int) {
			t.Helper()
			before := len(b.requests())
			c, out := connectCall(h), Answer(&Response[ConnectResult]{})
			if kind == Subscribe {
				c.Kind, c.Request, out = kind, &SubscribeRequest{Channel: "x"}, &Response[SubscribeResult]{}
			}
			if err := w.client.Ask(t.Context(), c, out); err != nil || len(b.requests()) != before+requests {
				t.Errorf("%s, %s: %d requests, want %d; %v", way, step, len(b.requests())-before, requests, err)
			}
			if step == "nonsense" {
				w.client.Malformed(c, errors.New(step))
			}
		}
		for _, c := range []struct {
			kind Kind
			body string
		}{
			{Subscribe, `{"result":{"expire_at":%d}}`},
			{Connect, `{"result":{"expire_at":%d}}`},
			{Connect, `{"result":{"subs":{"a":{"expire_at":%d},"b":{}}}}`},
		} {
			b.says(reply{body: fmt.Sprintf(c.body, w.client.now().Add(20*time.Second).Unix())})
			ask("good for 20 s", c.kind, 1)
			ask("which is kept", c.kind, 0)
			w.pass(20 * time.Second)
			ask("it has expired", c.kind, 1)
			w.pass(time.Minute)
		}
		b.says(reply{body: `{"result":{}}`})
		ask("nonsense", Subscribe, 1)
		ask("is asked again", Subscribe, 1)
	}
}

// All answers together are bounded, however large they are.
func TestAnswersAreBounded(t *testing.T) {
	a, at := newAnswers(), time.Unix(0, 0)
	body := make([]byte, answerBytesMax)
	const many = 2 * answersBytesMax / answerBytesMax
	for i := range many {
		a.keep(key{byte(i)}, body, at.Add(time.Minute))
		a.keep(key{byte(i)}, body, at.Add(time.Minute)) // counts once
	}
	if a.bytes != answersBytesMax || a.kept.Len() != many/2 {
		t.Errorf("%d answers with %d bytes are kept, want up to %d bytes", a.kept.Len(), a.bytes, answersBytesMax)
	}
	_, oldest := a.get(key{0}, at)
	_, newest := a.get(key{many - 1}, at)
	_, later := a.get(key{many - 1}, at.Add(time.Minute))
	if oldest || !newest || later || a.bytes != answersBytesMax-answerBytesMax {
		t.Errorf("the oldest is there: %v, the newest: %v, and when its time is over: %v; %d bytes", oldest, newest, later, a.bytes)
	}
	for i := range many {
		a.drop(key{byte(i)})
	}
	if a.bytes != 0 {
		t.Errorf("%d bytes are left of nothing", a.bytes)
	}
}

// Who ask the same at the same time share an answer.
func TestAskOnce(t *testing.T) {
	w := newWorld(t)
	b := w.backends["http"]
	release := make(chan struct{})
	b.says(reply{hang: release, body: `{"result":{"user":"7"}}`})
	h := &app.Hook{Name: "x", URL: b.url, Cache: time.Minute, Timeout: 20 * time.Second}
	var wait sync.WaitGroup
	started := make(chan struct{}, 20)
	for range 20 {
		wait.Go(func() {
			started <- struct{}{}
			var out Response[ConnectResult]
			if err := w.client.Ask(t.Context(), connectCall(h), &out); err != nil || out.Result.User != "7" {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	for range 20 {
		<-started
	}
	await.True(t, "the request", func() bool { return len(b.requests()) == 1 })
	close(release)
	wait.Wait()
	if n := len(b.requests()); n != 1 {
		t.Errorf("%d requests, want one", n)
	}
}

// A crowd that subscribes to a channel without a last value is one question;
// later ones are asked anew, whatever the hook keeps of others.
func TestCrowdAsksOnceAboutAnEmptyCache(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		h := &app.Hook{Name: way, URL: b.url, Cache: time.Minute, Timeout: 20 * time.Second}
		hold := make(chan struct{})
		b.says(reply{body: `{"result":{"populated":true}}`, hang: hold})
		ask := func(name string) error {
			var resp Response[CacheEmptyResult]
			err := w.client.Ask(t.Context(), &Call{App: "1", Hook: h, Kind: CacheEmpty, Client: &authz.Client{}, Request: &CacheEmptyRequest{name}}, &resp)
			if err == nil && (resp.Result == nil || !resp.Result.Populated) {
				err = errors.New("it is not populated")
			}
			return err
		}
		var wait sync.WaitGroup
		for i := range 40 {
			wait.Go(func() {
				if err := ask([]string{"cache-a", "cache-b"}[i%2]); err != nil {
					t.Errorf("%s: %v", way, err)
				}
			})
		}
		await.True(t, "both to be asked about", func() bool { return len(b.requests()) == 2 })
		close(hold)
		wait.Wait()
		if n := len(b.requests()); n > 4 { // some may have come late
			t.Errorf("%s: asked %d times by 40 about two channels", way, n)
		}
		before := len(b.requests())
		if err := ask("cache-a"); err != nil || len(b.requests()) != before+1 {
			t.Errorf("%s: a later question: %v, asked %d times", way, err, len(b.requests())-before)
		}
	}
}
