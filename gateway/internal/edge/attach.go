package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// attachment is a subscription, or a user's watchlist, on its way to
// completion:
//
//	registered in the interest -> mark in the mailbox -> hold in the table
//	   -> answers (roster, cached value, the past, who is online) -> told
//	   -> caught up with the past -> live
//
// From the mark on it holds what arrives, so that nothing is missed while the
// answers are on their way; each answer carries a floor below which it says
// everything, so that nothing is repeated.
type attachment struct {
	hub.Hold
	c     *client
	next  *attachment   // in the client's list
	keys  []channel.Key // one, or one for each watched user
	how   session.Attach
	kind  hub.Kind
	mark  resume.Place // up to which the partition had been delivered when it was registered
	floor hub.Floor

	watch *watching // of a watchlist

	marks    int // keys not yet marked
	waits    int // answers not yet here
	attempts int
	done     bool // complete or cancelled
	joined   bool // the join was answered with the roster
	result   session.Attached
	past     []resume.Entry // to be sent before it is live
	inline   int            // bytes of the past that the session tells
	told     bool           // complete but for the session's word to go live
}

// watching is what only the attachment of a watchlist has.
type watching struct {
	users  []string
	online []string // of the users
	known  bool     // online was answered
	told   func(online []string, now int64)
}

// watchAttempts is how often the state of watched users is asked for.
const watchAttempts = 3

func (c *client) attach(a *attachment) {
	h := c.h
	a.next, c.pending = c.pending, a
	a.marks = len(a.keys)
	for i, key := range a.keys {
		h.edge.interest.Register(key, h.index, a.kind, func(place resume.Place) {
			a.mark = place
			h.loop.PostAlways(mail{mark: a, markKey: i})
		})
	}
}

// marked: from here on every publication on the key comes by.
func (a *attachment) marked(i int) {
	if a.done {
		return
	}
	a.c.h.table.Hold(a.keys[i], &a.Hold)
	if a.marks--; a.marks == 0 {
		a.ask()
	}
}

// ask asks for what the subscription needs.
func (a *attachment) ask() {
	if a.watch != nil {
		a.askOnline()
		return
	}
	key, cfg := a.keys[0], &a.c.h.edge.cfg
	a.result.Channel = key.Name
	if occupies(key) {
		cfg.Roster.Subscribed(key)
	}
	if a.how.Member != nil {
		a.waits++
		cfg.Roster.Join(key, *a.how.Member, func(res presence.Result, err error) {
			a.c.h.run(func() { a.rosterCame(res, err) })
		})
	}
	if a.how.Cache && !a.resumes() { // else it may need none
		a.waits++
		a.askCache(a.mark.Position)
	}
	if a.how.Resume != nil {
		a.askPast()
	}
	if a.waits == 0 {
		a.complete()
	}
}

func (a *attachment) rosterCame(res presence.Result, err error) {
	if a.done { // cancelled meanwhile
		if err == nil && !res.Full {
			a.c.h.edge.cfg.Roster.Leave(a.keys[0], a.how.Member.ID)
		}
		return
	}
	switch {
	case err != nil:
		a.fail(dialect.Unavailable, "the members of the channel can't be told now, try again")
	case res.Full:
		a.fail(dialect.MembersLimit, "the channel has reached its limit of members")
	default:
		a.joined = true
		a.result.Members, a.floor.Version = a.c.h.edge.roster(a.keys[0], &res)
	}
	a.answered()
}

// askCache asks for the channel's last value. While the application may still
// be told that there is none, nobody else is.
func (a *attachment) askCache(atLeast message.Position) {
	req := history.Request{App: a.keys[0].App, Channel: a.keys[0].Name, AtLeast: atLeast, Cache: true, Miss: a.how.Fill == 0}
	a.c.h.edge.cfg.Backbone.Cached(req, func(r *history.Reply) {
		a.c.h.run(func() { a.cacheCame(r) })
	})
}

// fill has the application publish a last value, and asks for it again.
func (a *attachment) fill() {
	within := a.how.Fill
	a.how.Fill = 0
	a.c.h.edge.cfg.Backbone.CacheEmpty(a.keys[0], within, func() {
		a.c.h.run(func() {
			if !a.done {
				a.askCache(0)
			}
		})
	})
}

func (a *attachment) cacheCame(r *history.Reply) {
	if a.done {
		return
	}
	switch {
	case r != nil && r.Error == "" && r.Cached == nil && a.how.Fill > 0:
		a.fill()
		return
	case r == nil || r.Error != "":
		a.fail(dialect.Unavailable, "the cached event of the channel can't be read now, try again")
	case r.Cached != nil:
		pub, err := message.Parse(r.Cached.Publication)
		if err != nil {
			a.fail(dialect.Unavailable, "the cached event of the channel can't be read")
			break
		}
		a.result.Cached, a.result.CachedAt = pub, resume.Place{Epoch: r.Epoch, Position: r.Cached.Position}
		a.floor.Position = max(r.Cached.Position, r.Top)
	default:
		a.result.CachedAt = resume.Place{Epoch: r.Epoch, Position: r.Top}
		a.floor.Position = r.Top
	}
	a.answered()
}

func (a *attachment) fail(why dialect.Reason, text string) {
	if a.result.Failed == dialect.None {
		a.result.Failed, a.result.Message = why, text
	}
}

func (a *attachment) answered() {
	if a.waits--; a.waits == 0 {
		a.complete()
	}
}

func (a *attachment) askOnline() {
	a.attempts++
	h := a.c.h
	h.edge.cfg.Watcher.WhoIsOnline(a.c.app().ID, a.watch.users, func(online []string, err error) {
		h.run(func() {
			switch {
			case a.done:
			case err == nil:
				a.watch.online, a.watch.known = online, true
				h.edge.watched(a.keys, a.watch.users, online)
				a.complete()
			case a.attempts < watchAttempts:
				a.askOnline()
			default: // better no state than a wrong one: changes follow
				h.edge.cfg.Log.Warn("the online state of watched users can't be told", "err", err)
				a.complete()
			}
		})
	})
}

// complete tells the session and makes the subscription live.
func (a *attachment) complete() {
	c := a.c
	switch {
	case !a.Over:
	case a.watch != nil && a.attempts < watchAttempts: // with all that was missed
		a.Hold = hub.Hold{}
		a.askOnline()
		return
	default:
		a.fail(dialect.Unavailable, "too much was published while the subscription was being made, try again")
	}
	if a.result.Failed != dialect.None {
		a.cancel()
		if a.watch != nil { // the protocol has no words for it
			c.h.edge.cfg.Log.Warn("watched users changed too often, they are not watched", "socket", c.SocketID())
			return
		}
		c.sess.Attached(a.result, c.h.loop.Now())
		return
	}
	a.join()
	a.told = a.how.Wait // the session may say at once that it is to go live
	a.tell()
	if !a.how.Wait && !a.done { // it may have been detached, too
		a.catchUp()
	}
}

// Live ends the wait of a subscription that was attached with Attach.Wait. It
// returns false if too much has been published meanwhile: then the
// subscription has a gap.
func (c *client) Live(name string) bool {
	for a := c.pending; a != nil; a = a.next {
		if a.told && a.keys[0].Name == name {
			if !a.Over {
				a.catchUp()
			}
			return !a.Over
		}
	}
	return true
}

func (a *attachment) tell() {
	now := a.c.h.loop.Now()
	if a.watch != nil {
		if a.watch.known {
			a.watch.told(a.watch.online, now)
		}
		return
	}
	a.c.sess.Attached(a.result, now)
}

// end takes the attachment off the client's list.
func (a *attachment) end() {
	a.done = true
	for at := &a.c.pending; *at != nil; at = &(*at).next {
		if *at == a {
			*at, a.next = a.next, nil
			return
		}
	}
}

// cancel undoes what has been done so far. A join that is not answered yet is
// left when it is: whether it counts is known only then.
func (a *attachment) cancel() {
	a.end()
	c := a.c
	asked := a.marks == 0
	for _, key := range a.keys {
		c.h.table.Release(key, &a.Hold)
		c.unregister(key, a.kind)
		if asked && a.watch == nil && occupies(key) {
			c.h.edge.cfg.Roster.Unsubscribed(key)
		}
	}
	if a.joined {
		c.h.edge.cfg.Roster.Leave(a.keys[0], a.how.Member.ID)
	}
}
