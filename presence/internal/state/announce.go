package state

import (
	"strings"

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
	touched bool   // in Shard.touched
	pending bool   // in Shard.counts
	sent    uint64 // the number sent last
	sentMs  int64
}

// internal channels are no channels of the application.
func internal(key channel.Key) bool { return strings.HasPrefix(key.Name, "#") }

func (s *Shard) wantsHook(event string, key channel.Key) bool {
	if internal(key) {
		return false
	}
	a := s.cfg.App(key.App)
	return a != nil && a.WantsHook(event, key.Name)
}

func (s *Shard) memberAdded(r *room, m *member) {
	undone := s.holds.cancel(holdKey{r.key, m.ID})
	if s.silent {
		s.version++
		return
	}
	s.emit(Effect{
		Kind: MemberAdded, Key: r.key, Member: m.Member,
		Live: true, Hook: !undone && s.wantsHook(hook.MemberAdded, r.key),
	})
}

func (s *Shard) memberRemoved(r *room, m *member) {
	s.emit(Effect{Kind: MemberRemoved, Key: r.key, Member: m.Member, Live: true})
	if s.wantsHook(hook.MemberRemoved, r.key) || s.wantsHook(hook.MemberAdded, r.key) {
		s.holds.add(holdKey{r.key, m.ID}, Effect{Kind: MemberRemoved, Key: r.key, Member: m.Member, AtMs: s.nowMs, Hook: true})
	}
}

// countChanged announces occupied and vacated, and remembers to send the count.
func (s *Shard) countChanged(r *room, before uint64) {
	switch {
	case before == 0:
		undone := s.holds.cancel(holdKey{r.key, ""})
		if !s.silent {
			s.emit(Effect{Kind: Occupied, Key: r.key, Hook: !undone && s.wantsHook(hook.ChannelOccupied, r.key)})
		}
	case r.subscriptions == 0:
		if s.wantsHook(hook.ChannelVacated, r.key) || s.wantsHook(hook.ChannelOccupied, r.key) {
			s.holds.add(holdKey{r.key, ""}, Effect{Kind: Vacated, Key: r.key, AtMs: s.nowMs, Hook: true})
		}
	}
	if s.silent {
		r.count.sent = r.subscriptions
		return
	}
	if !r.count.touched {
		r.count.touched = true
		s.touched = append(s.touched, r)
	}
}

// flushTouched sends the counts that changed, or puts them off: many changes
// in one delta are one event.
func (s *Shard) flushTouched() {
	for _, r := range s.touched {
		r.count.touched = false
		if !s.sendCount(r) && !r.count.pending {
			r.count.pending = true
			s.counts = append(s.counts, r)
		}
	}
	clear(s.touched)
	s.touched = s.touched[:0]
}

// sendCount says whether there is nothing left to send for the room.
func (s *Shard) sendCount(r *room) bool {
	if r.subscriptions == r.count.sent {
		return true
	}
	a := s.cfg.App(r.key.App)
	if a == nil || internal(r.key) || channel.KindOf(r.key.Name).Presence {
		return true
	}
	live := a.SubscriptionCount && r.subscriptions > 0
	wants := a.WantsHook(hook.SubscriptionCount, r.key.Name)
	if !live && !wants {
		return true
	}
	if s.Waiting(s.nowMs) { // the sum is not known yet
		return false
	}
	if r.subscriptions > countImmediate && s.nowMs-r.count.sentMs < countEveryMs {
		return false
	}
	r.count.sent, r.count.sentMs = r.subscriptions, s.nowMs
	s.emit(Effect{Kind: Count, Key: r.key, Count: r.subscriptions, Live: live, Hook: wants})
	return true
}

// Tick sends what was put off or held until now.
func (s *Shard) Tick(nowMs int64, out *[]Effect) {
	s.begin(nowMs, out)
	defer s.end()
	later := s.counts[:0]
	for _, r := range s.counts {
		// A room that is gone was counted down to 0; another may have its name.
		if s.rooms[r.key] == r && !s.sendCount(r) {
			later = append(later, r)
			continue
		}
		r.count.pending = false
	}
	clear(s.counts[len(later):])
	s.counts = later
	for {
		e, due := s.holds.due(nowMs)
		if !due {
			break
		}
		if s.wantsHook(hookName(e.Kind), e.Key) {
			at := e.AtMs
			s.emit(e)
			(*s.out)[len(*s.out)-1].AtMs = at
		}
	}
}

func hookName(kind Kind) string {
	if kind == Vacated {
		return hook.ChannelVacated
	}
	return hook.MemberRemoved
}
