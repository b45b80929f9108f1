package follow

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"

	"github.com/carillon-rt/carillon/router/internal/rings"
)

const (
	waitingMax = 4 << 10
	limitMax   = 10_000
	replyMax   = 512 << 10 // bytes of publications in one reply
	// entryJSON is about what an entry takes in a reply besides its publication,
	// and replySlack what a reply does besides its entries.
	entryJSON  = 64
	replySlack = 1 << 10
	missedMax  = 16 << 10
	// missPeriod is how long a cache miss is not reported again.
	missPeriod = 60 * time.Second
)

// answer takes a history request; it runs on the subscription's goroutine.
func (f *follower) answer(msg *nats.Msg) {
	f.metrics.requests.Inc()
	var req history.Request
	if err := json.Unmarshal(msg.Data, &req); err != nil {
		f.metrics.unreadable.Inc()
		f.respond(msg, history.Reply{Error: "not a history request: " + err.Error()})
		return
	}
	f.mu.Lock()
	ahead := req.AtLeast.Seq() > f.last
	full := ahead && len(f.waiting) >= waitingMax
	if ahead && !full {
		f.waiting = append(f.waiting, waiting{msg, req, time.Now().Add(f.patience)})
	}
	f.mu.Unlock()
	switch {
	case full:
		f.metrics.late.Inc()
		f.respond(msg, history.Reply{Error: "too many requests wait for the journal, try again"})
	case !ahead:
		f.reply(msg, &req)
	}
}

// takeDue removes the waiting requests that can be answered now. mu is held.
func (f *follower) takeDue() []waiting {
	if len(f.waiting) == 0 {
		return nil
	}
	var due []waiting
	kept := f.waiting[:0]
	for _, w := range f.waiting {
		if w.req.AtLeast.Seq() <= f.last {
			due = append(due, w)
			continue
		}
		kept = append(kept, w)
	}
	clear(f.waiting[len(kept):])
	f.waiting = kept
	return due
}

// expireWaiting answers requests whose position did not come in time.
func (f *follower) expireWaiting(now time.Time) {
	f.mu.Lock()
	n := 0 // they are in order of deadline
	for n < len(f.waiting) && now.After(f.waiting[n].deadline) {
		n++
	}
	late := append([]waiting(nil), f.waiting[:n]...)
	f.waiting = f.waiting[:copy(f.waiting, f.waiting[n:])]
	f.mu.Unlock()
	f.refuse(late, "this position has not been reached yet, try again")
}

func (f *follower) answerAll(reason string) {
	f.mu.Lock()
	all := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	f.refuse(all, reason)
}

func (f *follower) refuse(ws []waiting, reason string) {
	f.metrics.late.Add(float64(len(ws)))
	for _, w := range ws {
		f.respond(w.msg, history.Reply{Error: reason, Epoch: f.currentEpoch()})
	}
}

// reply answers from the rings.
func (f *follower) reply(msg *nats.Msg, req *history.Request) {
	key := channel.Key{App: req.App, Name: req.Channel}
	now := time.Now()
	f.mu.Lock()
	out := f.lookUp(key, req, now)
	miss := req.Cache && out.Cached == nil && req.Miss && f.firstMiss(key, now)
	f.mu.Unlock()
	f.respond(msg, out)
	if !miss {
		return
	}
	if tenant := f.apps.ByID(key.App); tenant != nil {
		f.misses(tenant, key.Name, out.Top)
	}
}

// lookUp makes the answer. mu is held.
func (f *follower) lookUp(key channel.Key, req *history.Request, now time.Time) history.Reply {
	out := history.Reply{Epoch: f.epoch, Top: f.rings.Top(key), Floor: f.rings.Floor(key, now), Newest: f.journal.Highest()}
	if f.last > 0 {
		out.Applied = message.AfterBatch(f.last)
	}
	if req.Cache {
		if e, left, ok := f.rings.Cached(key, now); ok {
			cached := toEntry(e)
			out.Cached, out.CachedTTL = &cached, int(math.Ceil(left.Seconds()))
		}
	}
	if req.Limit > 0 {
		f.list(&out, key, req, now)
	}
	return out
}

// list puts the entries into the answer that were asked for, as far as a
// message carries them. mu is held.
func (f *follower) list(out *history.Reply, key channel.Key, req *history.Request, now time.Time) {
	kept, more := f.rings.Between(nil, key, req.Since, req.Before, min(req.Limit, limitMax)+1, req.Oldest, now)
	r := room{entries: min(req.Limit, limitMax), bytes: replyMax, body: int(f.payloadMax()) - replySlack}
	if out.Cached != nil {
		r.body -= bodyBytes(out.Cached.Publication)
	}
	if req.Oldest {
		n := r.fitting(kept)
		out.More = more || n < len(kept)
		kept = kept[:n]
	} else {
		cut := r.cutOff(kept)
		if cut > 0 {
			out.Floor = max(out.Floor, kept[cut-1].Position)
		}
		out.More = more || cut > 0
		kept = kept[cut:]
	}
	for _, e := range kept {
		out.Entries = append(out.Entries, toEntry(e))
	}
}

// firstMiss says whether this is the first miss since the channel had a value,
// or for missPeriod. mu is held.
func (f *follower) firstMiss(key channel.Key, now time.Time) bool {
	if at, told := f.missed[key]; told && now.Sub(at) < missPeriod {
		return false
	}
	if len(f.missed) >= missedMax {
		clear(f.missed) // the work queue removes most repeats by their id
	}
	f.missed[key] = now
	return true
}

// room is what a reply has room for: entries, bytes of their publications, and
// bytes of its body.
type room struct{ entries, bytes, body int }

// take says whether one more entry fits, and takes its room if it does.
func (r *room) take(e *rings.Entry) bool {
	body := bodyBytes(e.Data)
	if r.entries < 1 || r.bytes < len(e.Data) || r.body < body {
		return false
	}
	r.entries, r.bytes, r.body = r.entries-1, r.bytes-len(e.Data), r.body-body
	return true
}

func bodyBytes(publication []byte) int {
	return base64.StdEncoding.EncodedLen(len(publication)) + entryJSON
}

// cutOff is how many of the oldest entries have to be left out of a reply.
func (r room) cutOff(kept []rings.Entry) int {
	from := len(kept)
	for from > 0 && r.take(&kept[from-1]) {
		from--
	}
	return from
}

// fitting is how many of the oldest entries fit into a reply.
func (r room) fitting(kept []rings.Entry) int {
	n := 0
	for n < len(kept) && r.take(&kept[n]) {
		n++
	}
	return n
}

func toEntry(e rings.Entry) history.Entry {
	return history.Entry{Position: e.Position, Publication: e.Data}
}

func (f *follower) respond(msg *nats.Msg, out history.Reply) {
	if msg.Reply == "" {
		return
	}
	body, err := json.Marshal(out)
	if most := f.payloadMax(); err == nil && int64(len(body)) > most {
		f.log.Warn("a history reply is larger than a message may be", "bytes", len(body), "most", most)
		body, err = json.Marshal(history.Reply{Error: "the answer is larger than a message of the broker may be", Epoch: out.Epoch})
	}
	if err == nil {
		err = msg.Respond(body)
	}
	if err != nil {
		f.log.Debug("history reply not sent", "err", err)
	}
}

// missID names a cache miss the same on all followers of the partition.
func missID(app, channel string, top message.Position, now time.Time) string {
	return "miss:" + app + "/" + channel + ":" + itoa(uint64(top)) + ":" + itoa(uint64(now.Unix()/int64(missPeriod.Seconds())))
}
