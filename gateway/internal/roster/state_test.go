package roster

import (
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// The user's first connection has its roster and leaves, the second waits for
// its own: it must hear in time that there is nobody to give it.
func TestJoinFailsInTimeAlsoWhenAnotherConnectionHasLeft(t *testing.T) {
	s, now := newShard(0), time.Unix(1_700_000_000, 0)
	key, who := channel.Key{App: "1", Name: "presence-a"}, presence.Member{ID: "7", RawID: `"7"`}
	s.join(key, who, waiter{func(presence.Result, error) {}, now})
	s.next("gw", "run")
	s.landed(&presence.Reply{Results: make([]presence.Result, 1)})
	var answered error
	s.join(key, who, waiter{func(_ presence.Result, err error) { answered = err }, now.Add(time.Second)})
	s.leave(key, "7")
	s.expire(now.Add(2 * time.Second))
	for _, o := range s.takeOutcomes() {
		o.answer(o.result, o.err)
	}
	if !errors.Is(answered, ErrUnavailable) {
		t.Errorf("answered %v, want %v", answered, ErrUnavailable)
	}
	if got := ops(t, s); len(got) != 1 || got[0].Kind != presence.Leave {
		t.Errorf("then tells %v, want that the user has left", got)
	}
}

// ops parses the delta that the shard sends next.
func ops(t *testing.T, s *shard) []presence.Op {
	t.Helper()
	f := s.next("gw", "run")
	if f == nil {
		return nil
	}
	d, err := presence.ParseDelta(f.data)
	if err != nil {
		t.Fatal(err)
	}
	return d.Ops
}

// TestSnapshotInParts: who is in is told as such in every part, and the last
// part says that it is.
func TestSnapshotInParts(t *testing.T) {
	s := newShard(3)
	s.bytesMax = 100
	key := channel.Key{App: "1", Name: "presence-a"}
	for i := range 9 {
		user := fmt.Sprint(i)
		s.join(key, presence.Member{ID: user, RawID: user}, waiter{func(presence.Result, error) {}, time.Unix(1e10, 0)})
		s.next("gw", "run")
		s.landed(&presence.Reply{Results: make([]presence.Result, 1)})
	}
	s.startOver()
	joins, parts := 0, 0
	for more := true; more; parts++ {
		f := s.next("gw", "run")
		if f == nil {
			t.Fatal("the last part is missing")
		}
		d, err := presence.ParseDelta(f.data)
		if err != nil {
			t.Fatal(err)
		}
		if more = d.More; d.Snapshot != (parts == 0) || (joins+len(d.Ops) < 9) != more {
			t.Fatalf("part %d after %d joins: %+v", parts, joins, d)
		}
		for _, op := range d.Ops {
			if op.Kind != presence.Join || op.Want {
				t.Errorf("part %d: %+v, want a join of somebody who is in", parts, op)
			}
			joins++
		}
		if !s.landed(&presence.Reply{}) {
			t.Fatal("not landed")
		}
	}
	if joins != 9 || parts < 3 {
		t.Errorf("%d joins in %d parts, want 9 in 3 or more", joins, parts)
	}
	if s.next("gw", "run") != nil {
		t.Error("there is more to tell")
	}
}

func TestCoalescing(t *testing.T) {
	key := channel.Key{App: "1", Name: "presence-a"}
	who := presence.Member{ID: "7", RawID: "7", Info: `{"n":1}`}
	other := presence.Member{ID: "7", RawID: "7", Info: `{"n":2}`}
	ignore := waiter{func(presence.Result, error) {}, time.Unix(1e10, 0)}
	joined := func(s *shard) {
		s.join(key, who, ignore)
		s.next("gw", "run")
		s.landed(&presence.Reply{Results: make([]presence.Result, 1)})
	}
	for name, tc := range map[string]struct {
		do   func(s *shard)
		want []presence.OpKind
	}{
		"a leave before the join's answer":   {func(s *shard) { s.join(key, who, ignore); s.leave(key, "7") }, []presence.OpKind{presence.Join}},
		"two joins are one":                  {func(s *shard) { s.join(key, who, ignore); s.join(key, other, ignore) }, []presence.OpKind{presence.Join}},
		"a second connection reads":          {func(s *shard) { joined(s); s.join(key, who, ignore) }, []presence.OpKind{presence.Read}},
		"leave and back again reads":         {func(s *shard) { joined(s); s.leave(key, "7"); s.join(key, who, ignore) }, []presence.OpKind{presence.Read}},
		"back as somebody else":              {func(s *shard) { joined(s); s.leave(key, "7"); s.join(key, other, ignore) }, []presence.OpKind{presence.Leave, presence.Join}},
		"one of two connections leaves":      {func(s *shard) { joined(s); s.join(key, who, ignore); s.leave(key, "7") }, []presence.OpKind{presence.Read}},
		"counts are told as the last":        {func(s *shard) { s.subscribed(key, 1); s.subscribed(key, 1); s.subscribed(key, 1) }, []presence.OpKind{presence.Count}},
		"subscribe and unsubscribe":          {func(s *shard) { s.subscribed(key, 1); s.subscribed(key, -1) }, nil},
		"a stray leave":                      {func(s *shard) { s.leave(key, "7") }, nil},
		"a snapshot has no leave":            {func(s *shard) { joined(s); s.subscribed(key, 1); s.leave(key, "7"); s.startOver() }, []presence.OpKind{presence.Count}},
		"a snapshot of nothing is sent":      {func(s *shard) { s.startOver() }, []presence.OpKind{}},
		"a snapshot joins whom it joined":    {func(s *shard) { joined(s); s.startOver() }, []presence.OpKind{presence.Join}},
		"a join in flight is in a snapshot":  {func(s *shard) { s.join(key, who, ignore); s.next("gw", "run"); s.startOver() }, []presence.OpKind{presence.Join}},
		"nothing new while one is in flight": {func(s *shard) { s.join(key, who, ignore); s.next("gw", "run"); s.subscribed(key, 1) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(3)
			tc.do(s)
			got := ops(t, s)
			if (got == nil) != (tc.want == nil) || len(got) != len(tc.want) {
				t.Fatalf("operations %+v, want kinds %v", got, tc.want)
			}
			for i, k := range tc.want {
				if got[i].Kind != k {
					t.Fatalf("operation %d is %+v, want kind %v", i, got[i], k)
				}
			}
		})
	}
}

func TestFailures(t *testing.T) {
	key := channel.Key{App: "1", Name: "presence-a"}
	who := presence.Member{ID: "7", RawID: "7"}
	start := time.Unix(1_700_000_000, 0)
	s := newShard(3)
	var errs []error
	var full int
	note := waiter{func(res presence.Result, err error) {
		if res.Full {
			full++
		}
		errs = append(errs, err)
	}, start.Add(3 * time.Second)}
	flush := func() {
		for _, o := range s.takeOutcomes() {
			o.answer(o.result, o.err)
		}
	}
	s.join(key, who, note)
	s.next("gw", "run")
	s.join(key, who, note)
	s.landed(&presence.Reply{Results: []presence.Result{{Full: true, Limit: 1}}})
	flush()
	if full != 2 || len(s.waiting) != 0 {
		t.Fatalf("%d answered with Full, want both connections of the user", full)
	}
	if got := ops(t, s); got != nil {
		t.Fatalf("after a refusal there is nothing to tell, got %+v", got)
	}
	errs = nil
	s.join(key, who, note)
	s.next("gw", "run") // no answer
	if next := s.expire(start); !next.Equal(start.Add(3 * time.Second)) {
		t.Fatalf("next expiry at %v", next)
	}
	s.expire(start.Add(3 * time.Second))
	flush()
	if len(errs) != 1 || !errors.Is(errs[0], ErrUnavailable) {
		t.Fatalf("answers %v, want ErrUnavailable", errs)
	}
	s.landed(&presence.Reply{Results: make([]presence.Result, 1)})
	if got := ops(t, s); len(got) != 1 || got[0].Kind != presence.Leave {
		t.Fatalf("a join that was applied after its time must be undone, got %+v", got)
	}
}

// A gateway has a million channels with one subscriber each: what one costs is
// a promise. When a field has to be added, raise the number in the same commit
// and say why.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(entry{}); got > 80 {
		t.Errorf("an entry takes %d bytes, the budget is 80", got)
	}
}
