package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/recent"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
)

// shelf is a partition as a gateway has delivered it, and the routers that
// know all of it. Questions to these wait until the test lets them go.
type shelf struct {
	recent *recent.Window
	asked  chan question

	mu sync.Mutex
	// guarded by mu
	seq     uint64
	entries []history.Entry
}

type question struct {
	history.Request
	answer func([]byte, error)
}

func newShelf() *shelf {
	s := &shelf{recent: recent.New(1<<20, time.Hour), asked: make(chan question, 100)}
	s.recent.Reset(0)
	return s
}

func (s *shelf) Partitions() int             { return 1 }
func (s *shelf) Empty(int) message.Position  { return message.AfterBatch(0) }
func (s *shelf) Recent(int) *recent.Window   { return s.recent }
func (s *shelf) Last(int) message.Position   { return s.mark().Position }
func (s *shelf) channel() (key channel.Key)  { return channel.Key{App: "1", Name: "news"} }
func (s *shelf) reply(q question, err error) { s.replyUpTo(q, s.mark().Position, err) }

func (s *shelf) mark() resume.Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return resume.Place{Epoch: "e1", Position: message.At(s.seq, 0)}
}

// publish adds a batch of one.
func (s *shelf) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	var b message.Batch
	pub := &message.Publication{Kind: message.Event, App: "1", Channel: "news", ID: fmt.Sprint(s.seq), TimeMs: uint64(time.Now().UnixMilli())}
	b.Add(pub)
	s.entries = append(s.entries, history.Entry{Position: message.At(s.seq, 0), Publication: pub.Append(nil)})
	s.recent.Add(s.seq, b.Bytes(), time.Now())
}

// Ask implements Asker.
func (s *shelf) Ask(_ string, data []byte, _ time.Duration, done func([]byte, error)) {
	q := question{answer: done}
	if err := json.Unmarshal(data, &q.Request); err != nil {
		done(nil, err)
		return
	}
	s.asked <- q
}

// replyUpTo answers as a router that has applied everything up to a position.
func (s *shelf) replyUpTo(q question, applied message.Position, err error) {
	if err != nil {
		q.answer(nil, err)
		return
	}
	r := history.Reply{Epoch: "e1", Applied: message.AfterBatch(applied.Seq()), Newest: applied.Seq()}
	s.mu.Lock()
	for _, e := range s.entries {
		if e.Position > q.Since && e.Position <= r.Applied {
			r.Entries = append(r.Entries, e)
		}
	}
	s.mu.Unlock()
	if cut := len(r.Entries) - q.Limit; cut > 0 {
		r.Floor, r.Entries = r.Entries[cut-1].Position, r.Entries[cut:]
	}
	body, _ := json.Marshal(r) // can't fail
	q.answer(body, nil)
}

func runHistory(t *testing.T, s *shelf) *History {
	h := NewHistory(s, s, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

// come asks for everything since a place, and checks the answer with what was
// published.
func (s *shelf) come(t *testing.T, h *History, since uint64, answered *sync.WaitGroup) {
	t.Helper()
	w := resume.Wish{Since: resume.Place{Epoch: "e1", Position: message.At(since, 0)}}
	mark := s.mark()
	answered.Add(1)
	h.Past(w.Question(s.channel(), mark, resume.Keep{Size: 1000, TTL: time.Hour}), func(p *resume.Past) {
		defer answered.Done()
		if p == nil {
			t.Errorf("no answer since %d", since)
			return
		}
		a := w.Decide(mark, p)
		var got, want []string
		for _, e := range a.Entries {
			got = append(got, e.Publication.ID)
		}
		for seq := since + 1; seq <= mark.Position.Seq(); seq++ {
			want = append(want, fmt.Sprint(seq))
		}
		if !a.Recovered || !slices.Equal(got, want) {
			t.Errorf("since %d got %v (recovered %v), want %v", since, got, a.Recovered, want)
		}
	})
}

func TestMemoryAnswersWithoutAnyRead(t *testing.T) {
	s := newShelf()
	h := runHistory(t, s)
	var all sync.WaitGroup
	for i := range 100 {
		s.publish()
		s.come(t, h, uint64(i)/2, &all)
	}
	all.Wait()
	if n := testutil.ToFloat64(h.metrics.memory); n != 100 || len(s.asked) != 0 {
		t.Errorf("%v of 100 answered from memory, %d reads", n, len(s.asked))
	}
}

// What was delivered is parsed once for a crowd, however much comes while it
// does.
func TestACrowdSharesWhatIsInMemory(t *testing.T) {
	s := newShelf()
	h := runHistory(t, s)
	ask := func() *resume.Past {
		w := resume.Wish{Since: resume.Place{Epoch: "e1", Position: message.At(1, 0)}}
		past := make(chan *resume.Past, 1)
		h.Past(w.Question(s.channel(), s.mark(), resume.Keep{Size: 1000, TTL: time.Hour}), func(p *resume.Past) { past <- p })
		return <-past
	}
	for range 50 {
		s.publish()
	}
	before := ask()
	for range 50 {
		s.publish()
		now := ask()
		for i, e := range before.Entries {
			if now.Entries[i] != e {
				t.Fatalf("entry %d is parsed again, or another one: %+v, was %+v", i, now.Entries[i], e)
			}
		}
		if n := len(now.Entries); n != len(before.Entries)+1 {
			t.Fatalf("%d entries after %d and one more", n, len(before.Entries))
		}
		before = now
	}
}

// A crowd comes to a gateway that has just been started: one read for all of
// it, however far each is behind, and later ones need none.
func TestACrowdIsReadForOnce(t *testing.T) {
	s := newShelf()
	for range 100 {
		s.publish()
	}
	s.recent.Reset(s.mark().Position)
	h := runHistory(t, s)
	var all sync.WaitGroup
	for range 50 {
		s.come(t, h, 40, &all)
	}
	first := <-s.asked
	for range 500 {
		s.come(t, h, 60, &all)
	}
	await.True(t, "the others have joined", func() bool { return testutil.ToFloat64(h.metrics.joined) == 549 })
	s.publish()
	s.come(t, h, 50, &all) // at a mark that the read may not include
	s.replyUpTo(first, message.At(100, 0), nil)
	all.Wait()
	for since := range uint64(60) {
		s.publish()
		s.come(t, h, since+40, &all)
	}
	all.Wait()
	if n := testutil.ToFloat64(h.metrics.reads); n != 1 || len(s.asked) != 0 {
		t.Errorf("%v reads, and %d more under way; want 1", n, len(s.asked))
	}
	s.come(t, h, 10, &all)
	next := <-s.asked
	if next.Since != message.At(10, 0) {
		t.Errorf("then asked since %d", next.Since.Seq())
	}
	s.reply(next, nil)
	all.Wait()
}

// Before the first heartbeat a gateway knows no epoch: it takes that of the
// first read, as long as the partition is one line.
func TestACrowdBeforeTheFirstHeartbeat(t *testing.T) {
	s := newShelf()
	for range 20 {
		s.publish()
	}
	s.recent.Reset(s.mark().Position)
	h := runHistory(t, s)
	come := func() chan *resume.Past {
		w, got := resume.Wish{Since: resume.Place{Epoch: "e1", Position: message.At(10, 0)}}, make(chan *resume.Past, 1)
		mark := resume.Place{Position: s.mark().Position}
		h.Past(w.Question(s.channel(), mark, resume.Keep{Size: 100}), func(p *resume.Past) { got <- p })
		return got
	}
	first := come()
	s.reply(<-s.asked, nil)
	<-first
	for range 100 {
		if p := <-come(); p.Epoch != "e1" || len(p.Entries) != 10 {
			t.Fatalf("got %+v", p)
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("%d more reads", len(s.asked))
	}
	s.recent.Reset(s.mark().Position)
	again := come()
	s.reply(<-s.asked, nil)
	<-again
}

func TestReadsThatFailAreTriedAgain(t *testing.T) {
	s := newShelf()
	for range 10 {
		s.publish()
	}
	s.recent.Reset(s.mark().Position)
	h := runHistory(t, s)
	var all sync.WaitGroup
	s.come(t, h, 5, &all)
	s.reply(<-s.asked, errors.New("nobody there"))
	q := <-s.asked
	q.answer([]byte(`{"error":"not yet"}`), nil)
	s.reply(<-s.asked, nil)
	all.Wait()

	failed := make(chan *resume.Past, 1)
	w := resume.Wish{Since: resume.Place{Epoch: "e1", Position: 1}}
	h.Past(w.Question(s.channel(), s.mark(), resume.Keep{Size: 10}), func(p *resume.Past) { failed <- p })
	for range historyAttempts {
		s.reply(<-s.asked, errors.New("nobody there"))
	}
	if p := <-failed; p != nil {
		t.Errorf("got %+v from nobody", p)
	}
}

func TestRewindsReadNoMoreThanTheyWant(t *testing.T) {
	s := newShelf()
	for seq := range 100 {
		if seq == 95 {
			s.recent.Reset(s.mark().Position)
		}
		s.publish()
	}
	h := runHistory(t, s)
	ask := func(n int) chan *resume.Past {
		got := make(chan *resume.Past, 1)
		w := resume.Wish{Rewind: n}
		h.Past(w.Question(s.channel(), s.mark(), resume.Keep{Size: 50}), func(p *resume.Past) { got <- p })
		return got
	}
	if p := <-ask(5); len(p.Entries) != 5 || len(s.asked) != 0 {
		t.Errorf("%d entries after %d reads, want 5 from memory", len(p.Entries), len(s.asked))
	}
	got := ask(7)
	q := <-s.asked
	if q.Limit != 7 || q.Since != 0 {
		t.Errorf("asked for %d since %d", q.Limit, q.Since)
	}
	s.reply(q, nil)
	if p := <-got; len(p.Entries) != 7 || p.Floor != message.At(93, 0) {
		t.Errorf("%d entries above %d, want 7 above 93", len(p.Entries), p.Floor.Seq())
	}
	if p := <-ask(6); len(p.Entries) < 6 || len(s.asked) != 0 {
		t.Errorf("%d entries after another read", len(p.Entries))
	}
}

// A place that this gateway has not delivered yet is for the routers to judge.
func TestPlacesAheadAreAskedFor(t *testing.T) {
	s := newShelf()
	s.publish()
	h := runHistory(t, s)
	got := make(chan *resume.Past, 1)
	w := resume.Wish{Since: resume.Place{Epoch: "e1", Position: message.At(9, 0)}}
	h.Past(w.Question(s.channel(), s.mark(), resume.Keep{Size: 10}), func(p *resume.Past) { got <- p })
	s.reply(<-s.asked, nil)
	if a := w.Decide(s.mark(), <-got); a.Recovered {
		t.Errorf("a place from the future was recovered: %+v", a)
	}
}

func TestWhatIsOpenAtTheEndIsAnswered(t *testing.T) {
	s := newShelf()
	s.recent.Reset(message.At(9, 0))
	h := NewHistory(s, s, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	got := make(chan *resume.Past, 2)
	w := resume.Wish{Rewind: 1}
	ask := func() {
		h.Past(w.Question(s.channel(), s.mark(), resume.Keep{Size: 10}), func(p *resume.Past) { got <- p })
	}
	ask()
	q := <-s.asked
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ask()
	s.reply(q, nil)
	for range 2 {
		if p := <-got; p != nil {
			t.Errorf("got %+v after the end", p)
		}
	}
}
