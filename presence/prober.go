package presence

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	pingTimeout = 500 * time.Millisecond
	pingTries   = 2
	pingsMax    = 16 // at a time
	pingAgain   = time.Second
	// brokerGrace is how long after this node has reconnected to NATS nobody is
	// found gone: the gateways may not be back yet.
	brokerGrace = 6 * time.Second
	// goneAgain is the same for a gateway that was found gone: shards that
	// this node takes over after that suspect it anew.
	goneAgain = 200 * time.Millisecond
)

// prober asks gateways that the membership has lost over NATS too: only when
// both agree, a gateway is gone.
type prober struct {
	// immutable after New
	nc       *nats.Conn
	log      *slog.Logger
	suspects chan presence.Mark
	evict    func(ctx context.Context, m presence.Mark)

	mu sync.Mutex
	// guarded by mu
	askNext       map[presenceRun]time.Time // when it may be asked again
	reconnects    uint64                    // of nc, up to reconnectedAt
	reconnectedAt time.Time
}

// presenceRun is one run of a gateway.
type presenceRun struct{ node, incarnation string }

func newProber(nc *nats.Conn, log *slog.Logger, evict func(context.Context, presence.Mark)) *prober {
	return &prober{
		nc: nc, log: log, evict: evict,
		suspects: make(chan presence.Mark, 256), askNext: make(map[presenceRun]time.Time),
	}
}

// suspect hands a gateway over. It never blocks: a suspect that does not fit
// is suspected again.
func (p *prober) suspect(m presence.Mark) {
	select {
	case p.suspects <- m:
	default:
	}
}

// reconnected notes that the connection to NATS was lost and is back.
func (p *prober) reconnected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reconnects, p.reconnectedAt = p.nc.Stats().Reconnects, time.Now()
}

// settled says whether silence on NATS means anything: the connection is there
// and did not come back just now.
func (p *prober) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nc.IsConnected() && p.nc.Stats().Reconnects == p.reconnects && time.Since(p.reconnectedAt) > brokerGrace
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	slots := make(chan struct{}, pingsMax)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-p.suspects:
			if !p.due(m, time.Now()) {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			probes.Go(func() {
				defer func() { <-slots }()
				if p.gone(ctx, m) {
					p.log.Info("gateway is gone", "node", m.Node, "incarnation", m.Incarnation)
					p.evict(ctx, m)
					p.found(m, time.Now())
				}
			})
		}
	}
}

// due says whether it is time to ask this gateway (again).
func (p *prober) due(m presence.Mark, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for run, at := range p.askNext {
		if now.After(at) {
			delete(p.askNext, run)
		}
	}
	run := presenceRun{m.Node, m.Incarnation}
	if _, recently := p.askNext[run]; recently {
		return false
	}
	p.askNext[run] = now.Add(pingAgain)
	return true
}

// found lets a gateway that is gone be asked again sooner.
func (p *prober) found(m presence.Mark, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.askNext[presenceRun{m.Node, m.Incarnation}] = now.Add(goneAgain)
}

// gone asks the gateway: nobody there, a later run, or silence twice in a row
// mean that this run is gone. A host that lost its power leaves its NATS
// connection open for minutes, hence silence counts.
func (p *prober) gone(ctx context.Context, m presence.Mark) bool {
	for try := 0; try < pingTries; try++ {
		reqCtx, cancel := context.WithTimeout(ctx, pingTimeout)
		msg, err := p.nc.RequestWithContext(reqCtx, subject.GatewayPing(m.Node), nil)
		cancel()
		switch {
		case err == nil:
			return string(msg.Data) != m.Incarnation
		case errors.Is(err, nats.ErrNoResponders):
			return p.settled()
		case ctx.Err() != nil, !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout):
			return false // this node can't tell
		}
	}
	return p.settled()
}
