package edge

import (
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/app"
)

// counters are written by one loop and read by scrapes.
type counters struct {
	opened, closed, messages, clientEvents atomic.Uint64
	publications, deliveries               atomic.Uint64
	posts, relays                          atomic.Uint64
	closes, refused                        [dialect.ReasonsMax]atomic.Uint64 // by reason
	resumes                                [resumesMax]atomic.Uint64
	operations                             [operationsMax]atomic.Uint64
}

// Resume is what became of a subscription that wanted to keep its place.
type Resume uint8

// Resumes.
const (
	Recovered  Resume = iota // it got what it had missed
	Lost                     // it had a place, and was told that it lost it
	Fresh                    // it had none
	NoHistory                // the channel has none
	resumesMax               // above all
)

func (r Resume) String() string {
	return [resumesMax]string{"recovered", "lost", "fresh", "no_history"}[r]
}

func (c *counters) resume(w *resume.Wish, a *resume.Answer) {
	what := Fresh
	switch {
	case !a.Kept:
		what = NoHistory
	case a.Recovered:
		what = Recovered
	case w.Since.Epoch != "":
		what = Lost
	}
	c.resumes[what].Add(1)
}

func (c *counters) close(why dialect.Reason) { c.closes[why].Add(1) }

// Stats is a snapshot of an edge's counters since its start.
type Stats struct {
	Opened, Closed, Messages, ClientEvents uint64
	Publications, Deliveries               uint64
	// Posts are the HTTP requests that brought messages, Relays those that
	// received from a session without a stream of its own, or elsewhere.
	Posts, Relays uint64
	// KnownMemberEvents counts the member events that were not delivered,
	// because subscribers knew what they say.
	KnownMemberEvents uint64
	// Overtaken counts the publications that are not stored and were not
	// delivered, because later ones of their channel had come before.
	Overtaken uint64
	// Newest is the newest time of the routers' clock that a publication told
	// of: see message.AppendStamped.
	Newest uint64
	// Closes counts the connections that this node closed, by reason.
	Closes map[dialect.Reason]uint64
	// Refused counts the messages of clients that were refused or ignored, by
	// reason.
	Refused map[dialect.Reason]uint64
	// Turned counts the connections that were refused before they had a
	// session.
	Turned map[Refusal]uint64
	// Resumes counts the subscriptions that wanted to keep their place.
	Resumes [resumesMax]uint64
	// Operations counts what backends wanted of connections here.
	Operations [operationsMax]uint64
	// Connections is the number of connections of each app.
	Connections map[string]int64
	// Channels is the number of channels with local interest.
	Channels int
	// Loops are the loops' own figures.
	Loops []loop.Stats
}

// Stats reads the counters. It takes no lock of a loop.
func (e *Edge) Stats() Stats {
	s := Stats{
		Closes: map[dialect.Reason]uint64{}, Refused: map[dialect.Reason]uint64{},
		Turned: map[Refusal]uint64{}, Connections: e.apps.all(), Channels: e.interest.Channels(),
		KnownMemberEvents: e.interest.Dropped(), Overtaken: e.interest.Overtaken(), Newest: e.interest.Newest(),
	}
	for why := range refusals {
		s.Turned[why] = e.door.refused[why].Load()
	}
	for _, h := range e.handlers {
		c := &h.stats
		s.Opened += c.opened.Load()
		s.Closed += c.closed.Load()
		s.Messages += c.messages.Load()
		s.ClientEvents += c.clientEvents.Load()
		s.Publications += c.publications.Load()
		s.Deliveries += c.deliveries.Load()
		s.Posts += c.posts.Load()
		s.Relays += c.relays.Load()
		for _, why := range dialect.Reasons() {
			s.Closes[why] += c.closes[why].Load()
			s.Refused[why] += c.refused[why].Load()
		}
		for what := range s.Operations {
			s.Operations[what] += c.operations[what].Load()
		}
		for what := range s.Resumes {
			s.Resumes[what] += c.resumes[what].Load()
		}
		s.Loops = append(s.Loops, h.loop.Stats())
	}
	return s
}

// appCounts are the connections of each app on this node.
type appCounts struct{ byID sync.Map } // app id -> *atomic.Int64

func (a *appCounts) of(id string) *atomic.Int64 {
	if n, ok := a.byID.Load(id); ok {
		return n.(*atomic.Int64)
	}
	n, _ := a.byID.LoadOrStore(id, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// add counts a connection and says whether it is over the app's quota.
func (a *appCounts) add(of *app.App) (over bool) {
	n := a.of(of.ID).Add(1)
	return of.Limits.Connections > 0 && n > int64(of.Limits.Connections)
}

func (a *appCounts) done(of *app.App) { a.of(of.ID).Add(-1) }

func (a *appCounts) all() map[string]int64 {
	all := map[string]int64{}
	a.byID.Range(func(id, n any) bool {
		all[id.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return all
}
