// Package loop is the gateway's event loops: accepting connections, reading
// request heads and WebSocket messages, mail from other goroutines, timers,
// and writing what was queued, each connection once per turn. A loop owns its
// connections and shares nothing; its handler runs on its thread and needs no
// locks. It must not know dialects, channels or NATS.
//
// A turn is: wait for events, read, deliver mail, fire timers, EndTurn, write.
// Work per turn is bounded: one read per ready connection, MailPerTurn items,
// a flush that lets input in every MaxSends writes.
package loop

import (
	"context"
	"fmt"
	"runtime"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

// Loop is one event loop. Post, PostAll, PostAlways, Now and Stats may be
// called from any goroutine; Conn, ConnAt and Each only by its handler. M is the
// type of its mail.
type Loop[M any] struct {
	core
	handler Handler[M]
	inbox   mailbox[M]

	// owned by the loop
	taken []M // mail of a burst, delivered over several turns
	next  int // first item of taken that was not delivered
}

// New makes a loop. It allocates descriptors, which Run releases (also with a
// context that is done already), and starts nothing.
func New[M any](cfg Config, h Handler[M]) (*Loop[M], error) {
	poller, err := netpoll.New()
	if err != nil {
		return nil, fmt.Errorf("new loop: %w", err)
	}
	l, err := newOn(cfg, h, poller)
	if err != nil {
		_ = poller.Close() // the first error tells more
		return nil, err
	}
	return l, nil
}

// newOn makes a loop on a given poller.
func newOn[M any](cfg Config, h Handler[M], poller netpoll.Poller) (*Loop[M], error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Loop[M]{handler: h}
	l.core.init(cfg, h, l, poller)
	l.inbox.max = cfg.MailboxMax
	l.inbox.wake = l.core.wake
	return l, nil
}

// Run turns until ctx is done, then closes every connection with 1001 and
// returns nil. It locks its goroutine to a thread: run it in one of its own,
// with GOMAXPROCS above the number of loops, so that other goroutines always
// find a processor. A loop runs once.
func (l *Loop[M]) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unhook := context.AfterFunc(ctx, func() {
		l.stopping.Store(true)
		l.poller.Wake()
	})
	defer unhook()
	err := l.core.run()
	l.inbox.close()
	if stopErr := l.core.stop(); err == nil {
		err = stopErr
	}
	return err
}

// Post puts m into the mailbox and never blocks. It returns false, and counts,
// when the mailbox is full or the loop has stopped: the caller decides what
// the loss of m means.
func (l *Loop[M]) Post(m M) bool { return l.inbox.post(false, m) }

// PostAll puts all of ms into the mailbox, in order and with nothing in
// between, or none of them.
func (l *Loop[M]) PostAll(ms []M) bool { return l.inbox.post(false, ms...) }

// PostAlways is Post without the limit: for answers to what the loop itself
// asked, whose number the loop bounds. It returns false only when the loop has
// stopped.
func (l *Loop[M]) PostAlways(m M) bool { return l.inbox.post(true, m) }

// deliver implements mailer.
func (l *Loop[M]) deliver() {
	if l.next == len(l.taken) {
		l.taken = l.inbox.take(l.taken[:0])
		l.next = 0
	}
	if len(l.taken) == 0 {
		return
	}
	end := min(l.next+l.cfg.MailPerTurn, len(l.taken))
	items := l.taken[l.next:end]
	l.next = end
	l.callMail(items)
	clear(items)
	if l.next == len(l.taken) {
		l.taken, l.next = l.taken[:0], 0
	}
}

// waiting implements mailer.
func (l *Loop[M]) waiting() bool {
	if l.next < len(l.taken) {
		return true
	}
	n, _ := l.inbox.depth()
	return n > 0
}

func (l *Loop[M]) callMail(items []M) {
	defer l.guard.recovered(nil)
	l.handler.Mail(items)
}

// Stats returns a snapshot of the loop's counters. It may be called from any
// goroutine.
func (l *Loop[M]) Stats() Stats {
	s := l.stats.snapshot()
	depth, refused := l.inbox.depth()
	s.MailboxDepth, s.MailRefused = int64(depth), refused
	return s
}
