package state

import "github.com/carillon-rt/carillon/proto/channel"

// holdKey names a webhook that waits: a member's removal, or with an empty
// user that a channel was vacated.
type holdKey struct {
	key  channel.Key
	user string
}

// holds are webhooks that wait for HoldMs, because what they tell may be
// undone: then neither they nor the undoing are sent.
type holds struct {
	waiting map[holdKey]uint64 // number of the entry in queue that counts
	queue   []held             // by time, as all wait equally long
	n       uint64
}

type held struct {
	holdKey
	n      uint64
	effect Effect
}

func newHolds() holds { return holds{waiting: make(map[holdKey]uint64)} }

func (h *holds) add(k holdKey, e Effect) {
	h.n++
	h.waiting[k] = h.n
	h.queue = append(h.queue, held{k, h.n, e})
}

// cancel says whether there was something to undo.
func (h *holds) cancel(k holdKey) bool {
	_, ok := h.waiting[k]
	delete(h.waiting, k)
	return ok
}

// due gives the next effect whose time has come.
func (h *holds) due(nowMs int64) (Effect, bool) {
	for len(h.queue) > 0 {
		e := h.queue[0]
		if nowMs-e.effect.AtMs < HoldMs {
			return Effect{}, false
		}
		h.queue[0] = held{}
		h.queue = h.queue[1:]
		if h.waiting[e.holdKey] == e.n {
			delete(h.waiting, e.holdKey)
			return e.effect, true
		}
	}
	return Effect{}, false
}
