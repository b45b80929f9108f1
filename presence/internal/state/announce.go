package state

import (
	"strings"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/hook"
)

const (
	// countImmediate: up to so many subscriptions every change of the number
	// is sent at once, above it one in countEveryMs (Pusher Channels,
	// "subscription count events").
	countImmediate = 100
	countEveryMs   = 5000
)

// counting is the state of a room's count events.
type counting struct {
	touched bool   // in announcer.touched
	pending bool   // in announcer.counts
	sent    uint64 // the number sent last
	sentMs  int64
}

// internal channels are no channels of the application.
func internal(key channel.Key) bool { return strings.HasPrefix(key.Name, "#") }

// announcer makes effects of what changes: at once, when a count may be sent
// again, or when a webhook was held long enough.
type announcer struct {
	app    func(id string) *app.App
	window *window

	version uint64
	holds   holds
	counts  []*room // rooms with a count to send later

	// of the call that runs
	out     *[]Effect
	nowMs   int64
	silent  bool // take changes as known
	touched []*room
}

// begin sets what all changes of one call share.
func (a *announcer) begin(nowMs int64, out *[]Effect) { a.nowMs, a.out, a.silent = nowMs, out, false }

// end sends the counts that the call changed.
func (a *announcer) end() {
	a.flushTouched()
	a.out, a.silent = nil, false
}

// emit announces a change: live to subscribers, and by webhook if asked for.
func (a *announcer) emit(e Effect) {
	a.version++
	if !e.Live && !e.Hook {
		return
	}
	e.Version, e.AtMs = a.version, a.nowMs
	*a.out = append(*a.out, e)
}

func (a *announcer) wantsHook(event string, key channel.Key) bool {
	if internal(key) {
		return false
	}
	settings := a.app(key.App)
	return settings != nil && settings.WantsHook(event, key.Name)
}

// wantsLost says whether an app is told of connections that have gone with
// their gateway.
func (a *announcer) wantsLost(id string) bool {
	settings := a.app(id)
	return settings != nil && settings.WantsHook(hook.Disconnected, "")
}

func (a *announcer) memberAdded(r *room, m *member) {
	undone := a.holds.cancel(holdKey{r.key, m.ID})
	if a.silent {
		a.version++
		return
	}
	a.emit(Effect{
		Kind: MemberAdded, Key: r.key, Member: m.Member,
		Live: true, Hook: !undone && a.wantsHook(hook.MemberAdded, r.key),
	})
}

func (a *announcer) memberRemoved(r *room, m *member) {
	a.emit(Effect{Kind: MemberRemoved, Key: r.key, Member: m.Member, Live: true})
	if a.wantsHook(hook.MemberRemoved, r.key) || a.wantsHook(hook.MemberAdded, r.key) {
		a.holds.add(holdKey{r.key, m.ID}, Effect{Kind: MemberRemoved, Key: r.key, Member: m.Member, AtMs: a.nowMs, Hook: true})
	}
}

// countChanged announces occupied and vacated, and remembers to send the count.
func (a *announcer) countChanged(r *room, before uint64) {
	switch {
	case before == 0:
		undone := a.holds.cancel(holdKey{r.key, ""})
		if !a.silent {
			a.emit(Effect{Kind: Occupied, Key: r.key, Hook: !undone && a.wantsHook(hook.ChannelOccupied, r.key)})
		}
	case r.subscriptions == 0:
		if a.wantsHook(hook.ChannelVacated, r.key) || a.wantsHook(hook.ChannelOccupied, r.key) {
			a.holds.add(holdKey{r.key, ""}, Effect{Kind: Vacated, Key: r.key, AtMs: a.nowMs, Hook: true})
		}
	}
	if a.silent {
		r.count.sent = r.subscriptions
		return
	}
	if !r.count.touched {
		r.count.touched = true
		a.touched = append(a.touched, r)
	}
}

// flushTouched sends the counts that changed, or puts them off: many changes
// in one delta are one event.
func (a *announcer) flushTouched() {
	for _, r := range a.touched {
		r.count.touched = false
		if !a.sendCount(r) && !r.count.pending {
			r.count.pending = true
			a.counts = append(a.counts, r)
		}
	}
	clear(a.touched)
	a.touched = a.touched[:0]
}

// sendCount says whether there is nothing left to send for the room.
func (a *announcer) sendCount(r *room) bool {
	if r.subscriptions == r.count.sent {
		return true
	}
	settings := a.app(r.key.App)
	if settings == nil || internal(r.key) || channel.KindOf(r.key.Name).Presence {
		return true
	}
	live := settings.SubscriptionCount && r.subscriptions > 0
	wants := settings.WantsHook(hook.SubscriptionCount, r.key.Name)
	if !live && !wants {
		return true
	}
	if a.window.isOpen(a.nowMs) { // the sum is not known yet
		return false
	}
	if r.subscriptions > countImmediate && a.nowMs-r.count.sentMs < countEveryMs {
		return false
	}
	r.count.sent, r.count.sentMs = r.subscriptions, a.nowMs
	a.emit(Effect{Kind: Count, Key: r.key, Count: r.subscriptions, Live: live, Hook: wants})
	return true
}

// tick sends what was put off or held until now.
func (a *announcer) tick() {
	later := a.counts[:0]
	for _, r := range a.counts {
		// A room that is gone was counted down to 0.
		if !r.empty() && !a.sendCount(r) {
			later = append(later, r)
			continue
		}
		r.count.pending = false
	}
	clear(a.counts[len(later):])
	a.counts = later
	a.tellHeld(a.nowMs)
}

// tellHeld sends the webhooks that are due at a time.
func (a *announcer) tellHeld(atMs int64) {
	for {
		e, due := a.holds.due(atMs)
		if !due {
			return
		}
		if a.wantsHook(hookName(e.Kind), e.Key) {
			at := e.AtMs
			a.emit(e)
			(*a.out)[len(*a.out)-1].AtMs = at
		}
	}
}

func hookName(kind Kind) string {
	if kind == Vacated {
		return hook.ChannelVacated
	}
	return hook.MemberRemoved
}
