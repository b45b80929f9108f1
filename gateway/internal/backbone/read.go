package backbone

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/chain"
)

// Limits of one read of the log.
const (
	readBatches  = 256
	readBytesMax = 4 << 20
	retryFirst   = 20 * time.Millisecond
	retryMax     = time.Second
	// fruitlessMax is how many reads in a row may find nothing of what is
	// known to exist (about half a minute) before the partition is given up.
	fruitlessMax = 40
)

// readKind is what a partition is asking the stream.
type readKind uint8

const (
	idle readKind = iota
	readTail
	readGap
	readState
)

// read is the one question that a partition has under way, and when the next
// may be asked. It is owned by the partition's goroutine.
//
//	readTail --found--> start, or compare with what was delivered
//	    \--nothing--+
//	readGap --------+--> readState when what was found proves nothing
type read struct {
	kind     readKind
	then     readKind // what readState is asked for
	asked    uint64   // what had been delivered last when the question was asked
	round    uint64   // token of the reply subject; replies to older rounds are ignored
	deadline time.Time
	next     time.Time
	patience time.Time
	attempts int           // in a row without progress
	got      []chain.Batch // of a readGap, in order
}

// start asks the question kind.
func (r *read) start(p *partition, kind readKind) {
	r.kind, r.asked = kind, p.chain.Last()
	r.round++
	r.deadline = time.Now().Add(p.feed.cfg.Timeout)
	stream := p.feed.cfg.Stream
	subj, body := "$JS.API.DIRECT.GET."+stream, ""
	switch kind {
	case readTail:
		body = fmt.Sprintf(`{"last_by_subj":%q}`, p.logSubject())
	case readGap:
		// From last itself on, not from what follows it: if last is still
		// there, nothing that follows it has been trimmed.
		body = fmt.Sprintf(`{"seq":%d,"next_by_subj":%q,"batch":%d,"max_bytes":%d}`,
			max(p.chain.Last(), 1), p.logSubject(), readBatches, readBytesMax)
		if r.attempts == 0 {
			p.feed.metrics.repairs.Inc()
		}
	case readState:
		subj = "$JS.API.STREAM.INFO." + stream
	}
	p.timer.Reset(p.feed.cfg.Timeout)
	reply := p.inbox + "." + strconv.FormatUint(r.round, 10)
	if err := p.feed.conns.Req.PublishRequest(subj, reply, []byte(body)); err != nil {
		r.fail(p, err.Error())
	}
}

// cancel forgets the question under way.
func (r *read) cancel() {
	r.kind, r.got = idle, nil
	r.round++
}

// fail ends the question without an answer; the next waits a little longer
// each time.
func (r *read) fail(p *partition, why string) {
	p.feed.metrics.failed.Inc()
	if r.attempts == 4 || r.attempts%64 == 63 {
		p.log.Warn("the journal does not answer, trying on", "attempts", r.attempts+1, "why", why)
	}
	r.retry()
}

// retry ends the question; the same or another one is asked after a pause.
func (r *read) retry() {
	r.cancel()
	wait := retryMax
	if r.attempts < 6 {
		wait = retryFirst << r.attempts
	}
	r.attempts++
	r.next = time.Now().Add(min(wait, retryMax))
}

// expire is called when the timer has run out, for whatever reason.
func (r *read) expire(p *partition) {
	if r.kind == idle {
		return
	}
	if left := time.Until(r.deadline); left > 0 {
		p.timer.Reset(left)
		return
	}
	r.fail(p, "timeout")
}

// takeReply takes one message of the answer to the question under way.
func (p *partition) takeReply(m *nats.Msg) {
	r := &p.read
	if m == nil || r.kind == idle || !strings.HasSuffix(m.Subject, "."+strconv.FormatUint(r.round, 10)) {
		return
	}
	status := ""
	if v := m.Header[headerStatus]; len(v) > 0 {
		status = v[0]
	}
	switch {
	case status == "503":
		r.fail(p, "no responders: the stream is not there or has no leader")
	case status != "" && status != "204" && status != "404":
		r.fail(p, "status "+status)
	case r.kind == readTail:
		p.tailCame(m, status)
	case r.kind == readGap:
		p.gapCame(m, status)
	case r.kind == readState:
		p.stateCame(m)
	}
}

// tailCame has the newest batch of the log, or the word that there is none.
func (p *partition) tailCame(m *nats.Msg, status string) {
	b, ok := batchOf(m)
	switch {
	case status != "" || !ok:
		p.read.then = readTail
		p.read.start(p, readState)
	case !p.chain.Started():
		p.read.done()
		p.started(b.Seq, b.Data)
	case b.Seq < p.read.asked: // a replica that lags, or a stream made anew
		p.read.then = readTail
		p.read.start(p, readState)
	case b.Seq < p.chain.Last(): // more was delivered while the answer was on its way
		p.read.retry()
	default:
		p.read.done()
		p.chain.Tail(b.Seq)
		if b.Seq == p.chain.Last() {
			p.complete = time.Now()
		} else {
			p.read.patience = time.Now() // it is in the log: waiting is over
		}
	}
}

// done ends the question with success.
func (r *read) done() {
	r.cancel()
	r.attempts = 0
	r.next = time.Time{}
}

// gapCame collects the batches from last on, until the end is told.
func (p *partition) gapCame(m *nats.Msg, status string) {
	r := &p.read
	if status == "" {
		p.gapGrows(m)
		return
	}
	if len(r.got) > 0 && r.got[0].Seq <= max(p.chain.Last(), 1) {
		p.fill()
		return
	}
	got := r.got
	r.then = readGap
	r.start(p, readState)
	r.got = got
}

// gapGrows takes one batch of a readGap. Each names the one before it in the
// answer: replies get lost when they come faster than they are taken.
func (p *partition) gapGrows(m *nats.Msg) {
	r := &p.read
	b, ok := batchOf(m)
	if !ok || len(r.got) == readBatches {
		p.feed.metrics.malformed.Inc()
		return
	}
	if n := len(r.got); b.Prev != 0 && n == 0 || n > 0 && b.Prev != r.got[n-1].Seq {
		r.fail(p, "a part of the answer was lost")
		return
	}
	r.got = append(r.got, b)
	r.deadline = time.Now().Add(p.feed.cfg.Timeout)
}

// fill delivers what a read has found and is proven to be without holes.
func (p *partition) fill() {
	got := p.read.got
	before := p.chain.Last()
	for _, b := range got {
		if b.Seq > p.chain.Last() {
			p.feed.metrics.repaired.Inc()
		}
		p.deliverAll(p.chain.Stored(b, p.out[:0]))
	}
	if p.chain.Last() > before {
		p.log.Info("gap filled from the journal", "after", before, "to", p.chain.Last())
		p.read.done()
		return
	}
	switch {
	case p.read.attempts < fruitlessMax:
	case p.read.kind == readState:
		p.breakOff("the journal does not have what it had")
		return
	default: // as its leader says; a replica that is left alone can't tell
		p.read.then = readGap
		p.read.start(p, readState)
		p.read.got = got
		return
	}
	p.read.retry() // the replica that answered lags
}

// streamInfo is the part of the JetStream API's answer that is needed.
type streamInfo struct {
	Error *struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	} `json:"error"`
	Config struct {
		MaxAge   time.Duration `json:"max_age"`
		MaxBytes int64         `json:"max_bytes"`
	} `json:"config"`
	State struct {
		Messages uint64    `json:"messages"`
		Bytes    uint64    `json:"bytes"`
		FirstSeq uint64    `json:"first_seq"`
		FirstAt  time.Time `json:"first_ts"`
		LastSeq  uint64    `json:"last_seq"`
	} `json:"state"`
	// Cluster is missing where the server is alone.
	Cluster *struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
}

func (s *streamInfo) evidence() chain.Evidence {
	return chain.Evidence{
		FirstSeq: s.State.FirstSeq, LastSeq: s.State.LastSeq, Messages: s.State.Messages, FirstAt: s.State.FirstAt,
		MaxAge: s.Config.MaxAge, Bytes: s.State.Bytes, BytesMax: s.Config.MaxBytes,
	}
}

// stateCame has the stream's state, as its leader knows it.
func (p *partition) stateCame(m *nats.Msg) {
	var info streamInfo
	if err := json.Unmarshal(m.Data, &info); err != nil {
		p.read.fail(p, "stream info: "+err.Error())
		return
	}
	if info.Error != nil {
		p.read.fail(p, "stream info: "+info.Error.Description)
		return
	}
	if info.Cluster != nil && info.Cluster.Leader == "" { // each server tells of its own copy then
		p.read.fail(p, "the stream has no leader")
		return
	}
	ev := info.evidence()
	switch {
	case !p.chain.Started(): // the log of the partition is empty
		p.read.done()
		p.started(ev.LastSeq, nil)
	case ev.LastSeq < p.read.asked:
		p.lapse("the journal's sequences went backwards")
	case ev.LastSeq < p.chain.Last(): // more was delivered while the answer was on its way
		p.read.retry()
	case p.read.then == readTail:
		// Nothing is stored that was not delivered, but what expired may have
		// been missed: the next heartbeat or batch tells.
		p.tailSettled(ev)
	default:
		p.judge(ev)
	}
}

// tailSettled ends a check that found no newer batch.
func (p *partition) tailSettled(ev chain.Evidence) {
	if ev.LastSeq == p.chain.Last() {
		p.chain.Tail(ev.LastSeq)
		p.complete = time.Now()
		p.read.done()
		return
	}
	if p.intact(0, ev) {
		p.chain.Tail(p.chain.Last())
		p.read.done()
		return
	}
	p.read.retry()
}

func (p *partition) intact(first uint64, ev chain.Evidence) bool {
	r := chain.Reading{Last: p.chain.Last(), First: first, Delivered: p.delivered, Complete: p.complete, Now: time.Now()}
	return r.Intact(ev)
}

// judge decides whether what readGap has found is all that there was.
func (p *partition) judge(ev chain.Evidence) {
	var first uint64
	if len(p.read.got) > 0 {
		first = p.read.got[0].Seq
	}
	if !p.intact(first, ev) {
		p.breakOff("publications were trimmed from the journal before they could be read")
		return
	}
	p.fill()
}
