package backbone

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/chain"
	"github.com/carillon-rt/carillon/gateway/internal/backbone/recent"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Headers that the server adds to a republished or directly read message,
// in the form that the client's map has them: Header.Get would do no more.
const (
	headerSeq    = "Nats-Sequence"
	headerPrev   = "Nats-Last-Sequence"
	headerStatus = "Status"
)

// lapseTime is how long routers may take to find that the log went backwards.
const lapseTime = 15 * time.Second

// partition follows one partition. One goroutine runs it.
type partition struct {
	// immutable after newPartition
	feed    *Feed
	number  int
	log     *slog.Logger
	inbox   string
	live    chan *nats.Msg
	beats   chan *nats.Msg
	replies chan *nats.Msg
	doubts  chan struct{} // capacity 1
	recent  *recent.Window

	// atomic
	lastPos atomic.Uint64
	empty   atomic.Uint64

	// owned by run
	sink      Sink
	chain     chain.Chain
	out       []chain.Batch // scratch
	repeats   uint64        // of the chain, as counted in the metrics
	complete  time.Time     // when it was last certain that nothing is missing
	delivered time.Time     // when the newest stored batch was, zero before the first
	behind    bool          // as counted in the metrics
	followed  bool          // has started once
	keeps     bool          // what is delivered, in recent
	epoch     string        // of the heartbeats, or one of its own: see lapse
	lapsed    string        // the epoch that was found to have ended
	lapsedAt  time.Time     // when it was
	beatMax   uint64        // highest sequence that a heartbeat of the epoch told of
	read      read
	timer     *time.Timer
}

func newPartition(f *Feed, number int) *partition {
	return &partition{
		feed: f, number: number, log: f.log.With("partition", number), inbox: f.conns.Req.NewInbox(),
		live: make(chan *nats.Msg, f.cfg.QueueBatches), beats: make(chan *nats.Msg, 16),
		replies: make(chan *nats.Msg, readBatches+16), doubts: make(chan struct{}, 1),
		recent: recent.New(f.cfg.RecentBytes/f.cfg.Partitions, f.cfg.RecentAge),
	}
}

// doubt may be called by any goroutine.
func (p *partition) doubt() {
	select {
	case p.doubts <- struct{}{}:
	default:
	}
}

func (p *partition) run(ctx context.Context, sink Sink) {
	p.sink = sink
	p.timer = time.NewTimer(0)
	defer p.timer.Stop()
	p.complete = time.Now()
	p.setBehind(true)
	defer p.setBehind(false)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-p.live:
			p.takeLive(m)
		case m := <-p.replies:
			p.takeReply(m)
		case m := <-p.beats:
			p.takeBeat(m)
		case <-p.doubts:
			p.chain.Doubt()
			p.read.next = time.Time{} // the connection is back: don't wait
		case <-p.timer.C:
			p.read.expire(p)
		}
		p.step(time.Now())
	}
}

// step starts the read that is needed now, if any, and sets the timer.
func (p *partition) step(now time.Time) {
	if n := p.chain.Repeats(); n != p.repeats {
		p.feed.metrics.repeats.Add(float64(n - p.repeats))
		p.repeats = n
	}
	certain, possible := p.chain.Gap()
	p.setBehind(!p.chain.Started() || certain)
	if p.read.kind != idle {
		return
	}
	var kind readKind
	switch {
	case !p.chain.Started():
		kind = readTail
	case certain:
		kind = readGap
	case possible:
		// A heartbeat can overtake the batch that it tells of.
		if p.read.patience.IsZero() {
			p.read.patience = now.Add(p.feed.cfg.Patience)
		}
		if now.Before(p.read.patience) {
			p.timer.Reset(p.read.patience.Sub(now))
			return
		}
		kind = readGap
	case p.chain.Suspect():
		kind = readTail
	default:
		p.read.patience = time.Time{}
		p.read.attempts = 0
		return
	}
	if wait := p.read.next.Sub(now); wait > 0 {
		p.timer.Reset(wait)
		return
	}
	p.read.start(p, kind)
}

// takeLive takes a message of the live subject: with headers a batch of the
// log, without one that is not stored.
func (p *partition) takeLive(m *nats.Msg) {
	if m == nil {
		return
	}
	if len(m.Header) == 0 || m.Header[headerSeq] == nil {
		p.deliver(0, m.Data)
		return
	}
	b, ok := batchOf(m)
	if !ok {
		p.feed.metrics.malformed.Inc()
		return
	}
	out := p.chain.Live(b, p.out[:0])
	p.deliverAll(out)
	if certain, _ := p.chain.Gap(); len(out) > 0 && !certain {
		p.complete = p.delivered
	}
}

func batchOf(m *nats.Msg) (chain.Batch, bool) {
	seq, ok := headerUint(m, headerSeq)
	if !ok || seq == 0 {
		return chain.Batch{}, false
	}
	prev, _ := headerUint(m, headerPrev) // absent in a single read
	return chain.Batch{Seq: seq, Prev: prev, Data: m.Data}, true
}

func headerUint(m *nats.Msg, name string) (uint64, bool) {
	v := m.Header[name]
	if len(v) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[0], 10, 53)
	return n, err == nil
}

// takeBeat takes a heartbeat: the last sequence of the log and its epoch.
func (p *partition) takeBeat(m *nats.Msg) {
	var beat history.Heartbeat
	if m == nil || json.Unmarshal(m.Data, &beat) != nil {
		p.feed.metrics.malformed.Inc()
		return
	}
	if beat.Epoch == p.lapsed && time.Since(p.lapsedAt) < lapseTime {
		beat.Epoch = "" // this router has not noticed yet
	}
	if p.epoch != "" && beat.Epoch != "" && beat.Epoch != p.epoch && p.chain.Started() {
		if p.epoch != p.lapsed+"?" {
			p.lapsed = p.epoch
		}
		p.lapsedAt = time.Now()
		p.breakOff("the journal has a new epoch")
	}
	if beat.Epoch != "" && beat.Epoch != p.epoch {
		p.epoch = beat.Epoch
		p.tellEpoch()
		p.chain.Doubt() // that what was delivered is of this life is not certain until the tail was looked at
	}
	if p.chain.Started() {
		p.keepRecent(p.keeps)
		p.recent.Expire(time.Now())
	}
	p.chain.Tail(beat.LastSeq)
	// A follower that still reads the log tells of less than others have told.
	certain, _ := p.chain.Gap()
	if p.chain.Started() && !certain && beat.LastSeq <= p.chain.Last() && beat.LastSeq >= p.beatMax {
		p.complete = time.Now()
	}
	p.beatMax = max(p.beatMax, beat.LastSeq)
}

func (p *partition) deliverAll(batches []chain.Batch) {
	for i := range batches {
		p.deliver(batches[i].Seq, batches[i].Data)
	}
	if len(batches) > 0 {
		p.delivered = time.Now()
	}
	clear(batches) // the scratch must not keep batches alive
	p.out = batches[:0]
}

// deliver hands the publications of a batch to the sink; seq is 0 when it is
// not stored.
func (p *partition) deliver(seq uint64, data []byte) {
	if seq != 0 && p.keeps {
		p.recent.Add(seq, data, time.Now()) // before anybody learns of its positions
	}
	var pub message.Publication
	r, n := message.NewReader(data), 0
	var pos message.Position
	for r.Next(&pub) {
		if seq != 0 {
			pos = message.At(seq, r.Index())
			p.lastPos.Store(uint64(pos)) // before anybody has it, who may ask for all that was delivered
		}
		if pub.Trace == "" {
			p.sink.Deliver(p.number, pos, &pub)
		} else {
			p.deliverTraced(pos, &pub)
		}
		n++
	}
	if err := r.Err(); err != nil {
		p.feed.metrics.malformed.Inc()
		p.log.Debug("rest of a batch ignored", "seq", seq, "after", n, "err", err)
	}
	p.feed.metrics.batches.Inc()
	p.feed.metrics.publications.Add(float64(n))
	p.sink.Flush(p.number)
}

// breakOff gives up on what is missing, tells the sink and starts anew.
func (p *partition) breakOff(why string) {
	p.feed.metrics.broken.Inc()
	p.log.Error("partition is broken: publications are lost for this gateway", "why", why, "last", p.chain.Last())
	p.chain.Reset()
	p.read.done()
	p.beatMax, p.epoch = 0, ""
	if b, ok := p.sink.(Breaker); ok {
		b.Broken(p.number)
	}
}

// lapse breaks off because the log is not what it was, before any router has
// said so: until one does, positions belong to no epoch that clients know.
func (p *partition) lapse(why string) {
	epoch := p.epoch
	p.breakOff(why)
	if epoch != "" {
		p.lapsed, p.lapsedAt, p.epoch = epoch, time.Now(), epoch+"?"
		p.tellEpoch()
	}
}

func (p *partition) setBehind(behind bool) {
	if behind == p.behind {
		return
	}
	p.behind = behind
	if behind {
		p.feed.metrics.behind.Inc()
		return
	}
	p.feed.metrics.behind.Dec()
}

// started begins the chain just after the batch with sequence last; data is
// that batch, nil if there is none.
func (p *partition) started(last uint64, data []byte) {
	pos := message.AfterBatch(last)
	var pub message.Publication
	for r := message.NewReader(data); r.Next(&pub); {
		pos = message.At(last, r.Index())
	}
	p.empty.Store(0)
	if data == nil {
		p.empty.Store(uint64(pos))
	}
	first := !p.followed
	p.followed = true
	p.lastPos.Store(uint64(pos))
	p.complete, p.delivered = time.Now(), time.Time{}
	p.keepRecent(false)
	if s, ok := p.sink.(Starter); ok {
		s.Start(p.number, pos)
	}
	p.deliverAll(p.chain.Start(last, p.out[:0]))
	if first {
		p.feed.partitionStarted()
	}
}

// keepRecent begins or ends to keep what is delivered, as it is worth it; kept
// says whether what came before is complete in recent.
func (p *partition) keepRecent(kept bool) {
	cfg := &p.feed.cfg
	p.keeps = cfg.RecentBytes > 0 && cfg.RecentAge > 0 && cfg.Recovers != nil && cfg.Recovers()
	switch {
	case !p.keeps:
		p.recent.Reset(math.MaxUint64)
	case !kept:
		p.recent.Reset(message.Position(p.lastPos.Load()))
	}
}

// tellEpoch tells the sink what the heartbeats say.
func (p *partition) tellEpoch() {
	if s, ok := p.sink.(Placer); ok {
		s.Epoch(p.number, p.epoch)
	}
}

// logSubject is the partition's subject in the log.
func (p *partition) logSubject() string { return subject.Log(p.number) }
