package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Config is what an Edge is made of.
type Config struct {
	Apps       *app.Registry // without secrets
	Protocols  []Protocol
	Loops      int
	Partitions int
	// Node is what other nodes call this one, NodeNumber begins the socket ids
	// of this run of it.
	Node       string
	NodeNumber uint32
	// Loop is the configuration of each loop; Index is set here.
	Loop     loop.Config
	Limits   Limits
	Ages     Ages
	Backbone Backbone
	Answers  Answers // of protocols whose commands are answered
	History  History
	Roster   Roster
	Watcher  Watcher
	Events   Events // nil: nobody wants to know
	// Sessions may be nil: then there is no other node.
	Sessions Sessions
	// RelayWait is how long a question to a session elsewhere waits for
	// something to come (5 s). An owner that has died is noticed so soon: nobody
	// says that it will not answer what it was asked before.
	RelayWait time.Duration
	// Unsure is called with a presence channel whose members must be asked for
	// again; it must not block. Nil ignores it.
	Unsure func(channel.Key)
	Log    *slog.Logger
}

// Edge is the client side of a gateway: its loops, listeners, sessions and
// hub.
//
//	sockets -> loop -> handler -> session <-> dialect
//	                      |
//	                      +-> Backbone, Roster   (wishes; answers come by mail)
//	live batches -> Interest -> mail -> handler -> Table -> sockets
type Edge struct {
	// immutable after New
	cfg      Config
	interest *hub.Interest
	// views is, by protocol and view, its encoding.
	views [][]uint8
	// full is, by encoding, the one that subscriptions are registered with: it
	// differs for encodings of differences.
	full     []uint8
	handlers []*handler
	apps     appCounts
	door     *admission
	named    directory
	started  time.Time

	// atomic
	broken   []atomic.Bool // partitions since Broken, until Start
	draining atomic.Bool
	stopped  atomic.Bool

	mu sync.Mutex
	// guarded by mu
	listeners []*loop.Listener
}

// backlogMax is how many deliveries may wait in a loop's mailbox before the
// deliverers wait: then the NATS client's buffers fill, and the chain check
// repairs what is dropped there.
const backlogMax = 16 << 10

// New returns an edge that listens nowhere yet.
func New(cfg Config) (*Edge, error) {
	if cfg.Loops < 1 || cfg.Partitions < 1 || len(cfg.Protocols) == 0 {
		return nil, fmt.Errorf("edge: need loops, partitions and protocols, have %d, %d and %d", cfg.Loops, cfg.Partitions, len(cfg.Protocols))
	}
	cfg.RelayWait = cmp.Or(cfg.RelayWait, 5*time.Second)
	e := &Edge{cfg: cfg, broken: make([]atomic.Bool, cfg.Partitions), door: newAdmission(cfg.Limits), started: time.Now()}
	encodings, differences := e.encodings()
	for i := range cfg.Loops {
		h, err := newHandler(e, i)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.handlers = append(e.handlers, h)
	}
	e.interest = hub.NewInterest(hub.Config{
		Loops: cfg.Loops, Partitions: cfg.Partitions, Encodings: encodings, Differences: differences,
		Post: e.post, Room: e.room, Exclude: e.resolve, Members: e.hasMembers,
	})
	return e, nil
}

// encodings are those of all views of all protocols, in order, each followed by
// that of its differences; but protocols that are alike share theirs.
// differences gives these by encoding.
func (e *Edge) encodings() (all []hub.Encoding, differences []uint8) {
	add := func(f hub.Encoding, full uint8) uint8 {
		all, differences, e.full = append(all, f), append(differences, 0), append(e.full, full)
		return uint8(len(all) - 1)
	}
	for i, p := range e.cfg.Protocols {
		if like := slices.IndexFunc(e.cfg.Protocols[:i], p.alike); like >= 0 {
			e.views = append(e.views, e.views[like])
			continue
		}
		var views []uint8
		for _, view := range p.Views() {
			enc := add(&framed{View: view, framing: p.framing()}, uint8(len(all)))
			if views = append(views, enc); view.Difference != nil {
				different := add(&differing{framed{View: view, framing: p.framing()}}, enc)
				differences[enc] = different
			}
		}
		e.views = append(e.views, views)
	}
	return all, differences
}

// Listen binds addr ("host:port", port 0 for any). Connections are accepted
// once Run runs.
func (e *Edge) Listen(addr string) (net.Addr, error) {
	l, err := loop.Listen(addr, e.loops()...)
	return e.listening(l, err)
}

// ListenTLS is Listen with TLS ended in the gateway.
func (e *Edge) ListenTLS(addr string, cfg *tls.Config) (net.Addr, error) {
	l, err := loop.ListenTLS(addr, cfg, e.loops()...)
	return e.listening(l, err)
}

func (e *Edge) loops() []*loop.Loop[mail] {
	loops := make([]*loop.Loop[mail], len(e.handlers))
	for i, h := range e.handlers {
		loops[i] = h.loop
	}
	return loops
}

func (e *Edge) listening(l *loop.Listener, err error) (net.Addr, error) {
	if err != nil {
		return nil, fmt.Errorf("edge: listen: %w", err)
	}
	e.mu.Lock()
	e.listeners = append(e.listeners, l)
	e.mu.Unlock()
	return l.Addr(), nil
}

// Run runs the loops and listeners until ctx ends or one of them fails, and
// returns when all have stopped. Connections that are open then are closed.
func (e *Edge) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	run := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				stop(err)
			}
		})
	}
	for _, h := range e.handlers {
		run(h.loop.Run)
	}
	e.mu.Lock()
	for _, l := range e.listeners {
		run(l.Run)
	}
	e.mu.Unlock()
	<-ctx.Done()
	e.stopped.Store(true)
	e.StopListening()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close releases an edge that is never going to run.
func (e *Edge) Close() error {
	ended, end := context.WithCancel(context.Background())
	end()
	return e.Run(ended)
}

// StopListening closes the listeners; connections stay.
func (e *Edge) StopListening() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			e.cfg.Log.Warn("close listener", "addr", l.Addr(), "err", err)
		}
	}
	e.listeners = nil
}

// Deliver gives a publication of a partition to those who want it: see
// hub.Interest.Deliver.
func (e *Edge) Deliver(partition int, pos message.Position, pub *message.Publication) {
	e.interest.Deliver(partition, pos, pub)
}

// post is called under a partition's lock.
func (e *Edge) post(loop int, d *hub.Delivery) {
	h := e.handlers[loop]
	h.backlog.Add(1)
	h.loop.PostAlways(mail{delivery: d})
}

// room waits until every loop has room for deliveries.
func (e *Edge) room() {
	for _, h := range e.handlers {
		for h.backlog.Load() > backlogMax && !e.stopped.Load() {
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// onLoops runs f on every loop and waits for all, or for ctx.
func (e *Edge) onLoops(ctx context.Context, f func(*handler)) error {
	done := make(chan struct{}, len(e.handlers))
	for _, h := range e.handlers {
		h.run(func() {
			f(h)
			done <- struct{}{}
		})
	}
	for range e.handlers {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// framed is a view of publications in a framing.
type framed struct {
	dialect.View
	framing framing.Framing
	payload sync.Pool
}

// AppendFrame implements hub.Encoding.
func (f *framed) AppendFrame(dst []byte, pos message.Position, pub *message.Publication) []byte {
	return f.frame(dst, func(dst []byte) []byte { return f.Append(dst, pos, pub) })
}

func (f *framed) frame(dst []byte, message func(dst []byte) []byte) []byte {
	buf, _ := f.payload.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	payload := message((*buf)[:0])
	if len(payload) > 0 {
		if dst == nil {
			dst = make([]byte, 0, len(payload)+ws.HeaderBytesMax)
		}
		dst = f.framing.Append(dst, payload)
	}
	*buf = payload
	if cap(payload) <= 64<<10 {
		f.payload.Put(buf)
	}
	return dst
}

// differing is the encoding of differences.
type differing struct{ framed }

var _ hub.Differing = (*differing)(nil)

// AppendDifference implements hub.Differing.
func (d *differing) AppendDifference(dst []byte, pos message.Position, pub *message.Publication, before []byte) []byte {
	return d.frame(dst, func(dst []byte) []byte { return d.Difference(dst, pos, pub, before) })
}
