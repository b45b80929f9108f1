package webhook

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// idleAfter is when an endpoint without events gives up its goroutine.
	idleAfter = time.Minute
	// buryMax bounds the events buried by one goroutine at a time.
	buryMax = 64
	// buryAgain is the wait after the stream of dead events refused one.
	buryAgain = 2 * time.Second
)

// endpoint delivers to one webhook of one app. Its state is its own: a dead endpoint holds up nobody else.
type endpoint struct {
	// immutable
	svc  *Service
	app  string
	id   string
	wake chan struct{}

	mu sync.Mutex
	// guarded by mu
	backlog backlog
	burying bool
}

func newEndpoint(svc *Service, app, id string) *endpoint {
	return &endpoint{
		svc: svc, app: app, id: id, wake: make(chan struct{}, 1),
		backlog: backlog{cfg: &svc.cfg, rand: rand.Float64},
	}
}

// push hands an event over; batch is whether the endpoint takes batches now.
func (e *endpoint) push(it *item, batch bool) {
	e.mu.Lock()
	e.backlog.batch, e.backlog.room = batch, e.svc.room()
	kept := e.backlog.push(it, time.Now())
	e.mu.Unlock()
	if !kept {
		e.svc.metrics.overflow.Inc()
	}
	e.signal()
}

func (e *endpoint) signal() {
	select {
	case e.wake <- struct{}{}:
	default: // run is being woken already
	}
}

// run makes requests until ctx ends or the endpoint has been idle for a while; then it waits for those under way.
func (e *endpoint) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	timer := time.NewTimer(idleAfter)
	defer timer.Stop()
	for ctx.Err() == nil {
		e.start(ctx, &work)
		timer.Reset(e.untilNext())
		select {
		case <-e.wake:
		case <-ctx.Done():
		case <-timer.C:
			if e.svc.retire(e) {
				return
			}
		}
	}
}

// start begins all requests that may be made now.
func (e *endpoint) start(ctx context.Context, work *sync.WaitGroup) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for items := e.backlog.take(time.Now()); items != nil; items = e.backlog.take(time.Now()) {
		// A request under way is worth its timeout also when the node stops: the event would be sent twice.
		work.Go(func() { e.deliver(context.WithoutCancel(ctx), items) })
	}
	if len(e.backlog.dead) > 0 && !e.burying {
		e.burying = true
		work.Go(func() { e.bury(ctx) })
	}
}

func (e *endpoint) untilNext() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.backlog.next()
	if !ok || e.backlog.running > 0 && !at.After(time.Now()) { // the end of a request wakes
		return idleAfter
	}
	return min(max(time.Until(at), time.Millisecond), idleAfter)
}

// deliver makes one request and books its outcome.
func (e *endpoint) deliver(ctx context.Context, items []*item) {
	out := e.svc.post(ctx, e.app, e.id, items)
	e.mu.Lock()
	was := e.backlog.ill()
	switch {
	case out.gone:
		e.backlog.running--
	case out.err == nil:
		e.backlog.succeeded(time.Now())
	default:
		e.backlog.failed(items, time.Now(), out.err.Error(), out.retryAfter)
	}
	e.svc.turned(was, e.backlog.ill())
	e.backlog.room = e.svc.room()
	given := e.backlog.shrink()
	e.mu.Unlock()
	e.svc.metrics.overflow.Add(float64(given))
	if out.gone || out.err == nil {
		for _, it := range items {
			it.held.done()
		}
		e.svc.metrics.ended(out.gone, len(items))
	}
	e.signal()
}

// bury moves dead events to their stream, some at a time, and leaves the rest to the next turn.
func (e *endpoint) bury(ctx context.Context) {
	defer e.signal()
	for _, it := range e.takeDead() {
		err := e.svc.bury(ctx, e.app, e.id, it)
		if err == nil {
			it.held.done()
			e.svc.metrics.dead.Inc()
			continue
		}
		e.svc.log.Warn("webhook event can't be put to the dead events, trying on", "app", e.app, "err", err)
		e.mu.Lock()
		e.backlog.unburied(it)
		e.mu.Unlock()
		sleep(ctx, buryAgain)
	}
	e.mu.Lock()
	e.burying = false
	e.mu.Unlock()
}

func (e *endpoint) takeDead() []*item {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(len(e.backlog.dead), buryMax)
	items := append([]*item(nil), e.backlog.dead[:n]...)
	e.backlog.dead = append([]*item(nil), e.backlog.dead[n:]...)
	return items
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
