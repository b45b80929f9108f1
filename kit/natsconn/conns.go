package natsconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	connectTimeout = 2 * time.Second
	backoffFirst   = 50 * time.Millisecond
	backoffMax     = 2 * time.Second
	closeSlack     = time.Second
	// writeTimeout is what a server that takes no bytes may cost whoever publishes.
	writeTimeout = 5 * time.Second
	// slowSubjectsMax bounds the subjects that slow consumers are counted by; a process may have a subscription for each of its clients.
	slowSubjectsMax = 1024
)

// Conns are the two connections of a process. Live carries live batches alone, so that neither a big reply nor a slow stream read delays
// them; Req carries requests, publishing and JetStream. Both reconnect for ever.
type Conns struct {
	// immutable after Connect
	Live *nats.Conn
	Req  *nats.Conn

	log     *slog.Logger
	metrics *connMetrics
	closed  map[*nats.Conn]chan struct{}
	drain   time.Duration
	inbox   string // prefix of reply subjects, with its dot

	mu sync.Mutex
	// guarded by mu
	onReconnect  []func()
	onSlow       []func(subject string)
	slowSubjects map[string]struct{} // that have been counted
}

// Connect opens both connections under name. It tries until ctx ends, because the servers may still be starting; what no retry can mend (a
// wrong option, an unreadable file) is an error at once. metrics may be nil.
func Connect(ctx context.Context, cfg Config, name string, log *slog.Logger, metrics prometheus.Registerer) (*Conns, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	c := &Conns{
		log: log, metrics: newConnMetrics(metrics), closed: make(map[*nats.Conn]chan struct{}, 2), drain: cfg.DrainTimeout,
		inbox: nats.InboxPrefix, slowSubjects: make(map[string]struct{}),
	}
	if cfg.InboxPrefix != "" {
		c.inbox = cfg.InboxPrefix + "."
	}
	if c.drain <= 0 {
		c.drain = DefaultConfig().DrainTimeout
	}
	var err error
	// A live publish that can't leave now is refused now: sent after the reconnect it would come out of order.
	if c.Live, err = c.dial(ctx, cfg, name, "live", nats.ReconnectBufSize(-1)); err != nil {
		return nil, err
	}
	if c.Req, err = c.dial(ctx, cfg, name, "req"); err != nil {
		c.Live.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conns) dial(ctx context.Context, cfg Config, name, role string, extra ...nats.Option) (*nats.Conn, error) {
	closed := make(chan struct{})
	opts, err := c.options(cfg, name, role, closed)
	if err != nil {
		return nil, err
	}
	opts = append(opts, extra...)
	target := strings.Join(cfg.URLs, ",")
	if cfg.InProcess != nil {
		opts, target = append(opts, nats.InProcessServer(inProcess{cfg.InProcess})), ""
	}
	for attempt := 1; ; attempt++ {
		nc, err := nats.Connect(target, opts...)
		if err == nil {
			c.closed[nc] = closed
			return nc, nil
		}
		if attempt == 1 || attempt%20 == 0 {
			c.log.Warn("NATS does not answer, trying on", "conn", role, "attempt", attempt, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to NATS (%s, %d attempts): %w", role, attempt, errors.Join(err, ctx.Err()))
		case <-time.After(backoff(attempt)):
		}
	}
}

// backoff doubles from 50 ms to 2 s and takes a random half of it away, so that a thousand processes do not come back in step.
func backoff(attempt int) time.Duration {
	wait := backoffMax
	if attempt < 7 {
		wait = min(backoffFirst<<max(attempt-1, 0), backoffMax)
	}
	return wait/2 + rand.N(wait/2)
}

func (c *Conns) options(cfg Config, name, role string, closed chan struct{}) ([]nats.Option, error) {
	m := c.metrics.of(role)
	log := c.log.With("conn", role)
	opts := []nats.Option{
		nats.Name(name + "/" + role),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(backoff),
		nats.IgnoreAuthErrorAbort(), // servers that restart may refuse for a while what they accept later
		nats.PingInterval(cfg.PingInterval),
		nats.MaxPingsOutstanding(2),
		nats.DrainTimeout(c.drain),
		nats.FlusherTimeout(writeTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { c.asyncError(log, sub, err) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			m.up.Set(0)
			if nc.IsClosed() || nc.IsDraining() {
				return
			}
			m.disconnects.Inc()
			log.Warn("NATS connection lost", "err", err)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			m.up.Set(1)
			m.reconnects.Inc()
			log.Info("NATS connection is back", "url", nc.ConnectedUrlRedacted())
			c.reconnected()
		}),
		nats.ConnectHandler(func(*nats.Conn) { m.up.Set(1) }),
		nats.ClosedHandler(func(*nats.Conn) {
			m.up.Set(0)
			close(closed)
		}),
	}
	if cfg.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	creds, err := cfg.credentials()
	if err != nil {
		return nil, err
	}
	tlsOpts, err := cfg.TLS.options()
	if err != nil {
		return nil, err
	}
	return append(append(opts, creds...), tlsOpts...), nil
}

func (c *Conns) asyncError(log *slog.Logger, sub *nats.Subscription, err error) {
	if sub == nil || !errors.Is(err, nats.ErrSlowConsumer) {
		log.Warn("NATS reports an error", "err", err)
		return
	}
	subject := sub.Subject
	c.metrics.slow.WithLabelValues(c.slowLabel(subject)).Inc()
	dropped, _ := sub.Dropped()
	log.Warn("messages dropped, their reader is too slow", "subject", subject, "dropped", dropped)
	c.mu.Lock()
	hooks := slices.Clone(c.onSlow)
	c.mu.Unlock()
	for _, hook := range hooks {
		hook(subject)
	}
}

// slowLabel keeps the label bounded: reply inboxes have random names, and of the others only so many are named.
func (c *Conns) slowLabel(subject string) string {
	if strings.HasPrefix(subject, c.inbox) {
		return "inbox"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, counted := c.slowSubjects[subject]; !counted && len(c.slowSubjects) >= slowSubjectsMax {
		return "other"
	}
	c.slowSubjects[subject] = struct{}{}
	return subject
}

func (c *Conns) reconnected() {
	c.mu.Lock()
	hooks := slices.Clone(c.onReconnect)
	c.mu.Unlock()
	for _, hook := range hooks {
		hook()
	}
}

// OnReconnect adds a function that is called after either connection came back: messages may have been missed. The subscriptions have been
// sent again then, but only a Flush tells that the server has them: a tail check that is read before it can miss what came
// between. It runs on the connection's callback goroutine and must not block.
func (c *Conns) OnReconnect(hook func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onReconnect = append(c.onReconnect, hook)
}

// OnSlowConsumer adds a function that is called with the subject of a subscription that dropped messages, once for each time that
// it begins to drop. The same rules as for OnReconnect.
func (c *Conns) OnSlowConsumer(hook func(subject string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onSlow = append(c.onSlow, hook)
}

// Connected returns nil while both connections are up, else what is wrong: a readiness check.
func (c *Conns) Connected() error {
	for _, conn := range []struct {
		role string
		nc   *nats.Conn
	}{{"live", c.Live}, {"req", c.Req}} {
		if status := conn.nc.Status(); status != nats.CONNECTED {
			return fmt.Errorf("NATS connection %s is %s", conn.role, strings.ToLower(status.String()))
		}
	}
	return nil
}

// Close drains both connections (no new messages in, all that was published out) and returns when they are closed, after
// the drain timeout at the latest.
func (c *Conns) Close() error {
	var errs []error
	for _, nc := range []*nats.Conn{c.Live, c.Req} {
		if err := c.drainOne(nc); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Conns) drainOne(nc *nats.Conn) error {
	if err := nc.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		nc.Close() // it is reconnecting: there is nothing to drain into
	}
	timer := time.NewTimer(c.drain + closeSlack)
	defer timer.Stop()
	select {
	case <-c.closed[nc]:
		return nil
	case <-timer.C:
		nc.Close()
		return fmt.Errorf("drain NATS connection: not done in %s", c.drain)
	}
}
