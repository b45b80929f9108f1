package roster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// model is the owner of a shard as the contract in proto/presence describes
// it, for one gateway.
type model struct {
	known   bool
	last    uint64
	listed  map[string]bool // by the parts of a snapshot so far; nil without one
	reply   presence.Reply
	members map[channel.Key]map[string]presence.Member
	counts  map[channel.Key]uint64
	online  map[channel.Key]bool
	limit   int
	events  map[string]int // user in channel: +1 added, -1 removed
}

func newModel(limit int) *model {
	return &model{
		members: map[channel.Key]map[string]presence.Member{}, counts: map[channel.Key]uint64{},
		online: map[channel.Key]bool{}, limit: limit, events: map[string]int{},
	}
}

func (o *model) apply(t *testing.T, data []byte) presence.Reply {
	d, err := presence.ParseDelta(data)
	if err != nil {
		t.Fatalf("delta: %v", err)
	}
	switch {
	case o.known && d.Seq == o.last:
		return o.reply
	case !d.Snapshot && (!o.known || d.Seq != o.last+1), o.known && d.Seq < o.last:
		return presence.Reply{Status: presence.Resync}
	}
	if d.Snapshot {
		o.listed = map[string]bool{}
	}
	o.known, o.last, o.reply = true, d.Seq, presence.Reply{}
	refused := map[int]bool{}
	for i := range d.Ops {
		refused[i] = o.op(t, &d.Ops[i])
	}
	if d.More && o.listed == nil {
		t.Error("more parts of no snapshot")
	}
	if !d.More && o.listed != nil {
		o.keepListed()
	}
	for i, op := range d.Ops {
		if op.Want {
			o.reply.Results = append(o.reply.Results, o.result(op, refused[i]))
		}
	}
	return o.reply
}

// listing names what an operation lists.
func listing(kind presence.OpKind, key channel.Key, user string) string {
	return fmt.Sprint(kind, key, user)
}

// keepListed drops what no part of the snapshot has listed.
func (o *model) keepListed() {
	for key, users := range o.members {
		for u := range users {
			if !o.listed[listing(presence.Join, key, u)] {
				delete(users, u)
			}
		}
	}
	maps.DeleteFunc(o.counts, func(key channel.Key, _ uint64) bool { return !o.listed[listing(presence.Count, key, "")] })
	maps.DeleteFunc(o.online, func(key channel.Key, _ bool) bool { return !o.listed[listing(presence.Online, key, "")] })
	o.listed = nil
}

func (o *model) op(t *testing.T, op *presence.Op) (refused bool) {
	key := channel.Key{App: op.App, Name: op.Channel}
	snapshot := o.listed != nil
	if snapshot {
		user := ""
		if op.Kind == presence.Join {
			user = op.User
		}
		o.listed[listing(op.Kind, key, user)] = true
	}
	switch op.Kind {
	case presence.Join:
		if o.members[key] == nil {
			o.members[key] = map[string]presence.Member{}
		}
		if _, here := o.members[key][op.User]; here {
			if !snapshot {
				t.Errorf("%s joins %s twice", op.User, key)
			}
			o.members[key][op.User] = presence.Member{ID: op.User, RawID: op.RawID, Info: op.Info}
			return false
		}
		if len(o.members[key]) >= o.limit && (op.Want || !snapshot) {
			return true
		}
		o.members[key][op.User] = presence.Member{ID: op.User, RawID: op.RawID, Info: op.Info}
	case presence.Leave:
		if _, here := o.members[key][op.User]; !here {
			o.events["stray leave"]++
		}
		delete(o.members[key], op.User)
	case presence.Count:
		o.counts[key] = op.Count
	case presence.Online:
		o.online[key] = true
	case presence.Offline:
		delete(o.online, key)
	}
	return false
}

func (o *model) result(op presence.Op, refused bool) presence.Result {
	if refused {
		return presence.Result{Full: true, Limit: uint64(o.limit)}
	}
	if o.last%7 == 3 {
		return presence.Result{Deferred: true}
	}
	res := presence.Result{Version: o.last}
	for _, m := range o.members[channel.Key{App: op.App, Name: op.Channel}] {
		res.Members = append(res.Members, m)
	}
	return res
}

// conn is a connection of the simulated clients.
type conn struct {
	key      channel.Key
	user     string
	answered bool
	joined   bool
	left     bool
}

// sim drives a shard with clients, an owner and a bad network between them.
type sim struct {
	t        *testing.T
	rng      *rand.Rand
	shard    *shard
	owner    *model
	now      time.Time
	conns    []*conn
	counts   map[channel.Key]int
	online   map[channel.Key]int
	lossless bool
}

func (s *sim) key() channel.Key {
	return channel.Key{App: "1", Name: fmt.Sprintf("presence-%d", s.rng.IntN(4))}
}

func (s *sim) step() {
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		s.join()
	case 3, 4:
		s.leave()
	case 5:
		k := s.key()
		s.counts[k]++
		s.shard.subscribed(k, 1)
	case 6:
		if k := s.key(); s.counts[k] > 0 {
			s.counts[k]--
			s.shard.subscribed(k, -1)
		}
	case 7:
		k := onlineKey("1", fmt.Sprint(s.rng.IntN(3)))
		s.online[k]++
		s.shard.signedIn(k, 1)
	case 8:
		if k := onlineKey("1", fmt.Sprint(s.rng.IntN(3))); s.online[k] > 0 {
			s.online[k]--
			s.shard.signedIn(k, -1)
		}
	case 9:
		s.now = s.now.Add(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
		s.shard.expire(s.now)
	default:
		s.network()
	}
	s.drain()
}

func (s *sim) join() {
	user := fmt.Sprint(s.rng.IntN(6))
	c := &conn{key: s.key(), user: user}
	s.conns = append(s.conns, c)
	info := fmt.Sprintf(`{"v":%d}`, s.rng.IntN(2))
	s.shard.join(c.key, presence.Member{ID: user, RawID: `"` + user + `"`, Info: info}, waiter{func(res presence.Result, err error) {
		if c.answered {
			s.t.Fatal("answered twice")
		}
		c.answered = true
		c.joined = err == nil && !res.Full
		if !c.joined || c.left {
			return
		}
		for _, m := range res.Members {
			if m.ID == user {
				return
			}
		}
		s.t.Fatalf("roster %v does not hold %s", res.Members, user)
	}, s.now.Add(3 * time.Second)})
}

func (s *sim) leave() {
	for range 5 {
		if len(s.conns) == 0 {
			return
		}
		c := s.conns[s.rng.IntN(len(s.conns))]
		if c.left || !c.joined {
			continue
		}
		c.left = true
		s.shard.leave(c.key, c.user)
		return
	}
}

func (s *sim) drain() {
	for _, o := range s.shard.takeOutcomes() {
		o.answer(o.result, o.err)
	}
}

// network sends what is to be sent; requests and replies may be lost, the
// owner may be replaced, sent again is sent again.
func (s *sim) network() {
	if !s.lossless && s.rng.IntN(15) == 0 {
		s.owner = newModel(s.owner.limit)
		if s.rng.IntN(2) == 0 {
			s.shard.startOver() // membership tells; else the new owner asks
		}
	}
	f := s.shard.flight
	if f == nil {
		if f = s.shard.next("gw", "run"); f == nil {
			return
		}
	}
	if !s.lossless && s.rng.IntN(5) == 0 {
		if s.rng.IntN(4) == 0 && !f.snapshot {
			s.shard.startOver() // tried too often
		}
		return
	}
	reply := s.owner.apply(s.t, f.data)
	if !s.lossless && s.rng.IntN(5) == 0 {
		return
	}
	if !s.lossless && s.rng.IntN(20) == 0 {
		reply = presence.Reply{Status: presence.NotOwner}
	}
	wire, err := presence.ParseReply(presence.AppendReply(nil, &reply))
	if err != nil {
		s.t.Fatal(err)
	}
	if !s.shard.landed(&wire) {
		s.t.Fatal("the owner's reply does not fit the delta")
	}
}

// settle lets the network be good until nothing is left to tell.
func (s *sim) settle() {
	s.lossless = true
	if !s.owner.known {
		s.shard.startOver() // membership tells of a new owner, sooner or later
	}
	for i := 0; s.shard.busy() || len(s.shard.waiting) > 0; i++ {
		if i > 200 {
			s.t.Fatal("does not settle")
		}
		s.network()
		s.drain()
	}
}

func (s *sim) check() {
	want := map[channel.Key]map[string]bool{}
	for i, c := range s.conns {
		if !c.answered {
			s.t.Errorf("connection %d was never answered", i)
		}
		if c.joined && !c.left {
			if want[c.key] == nil {
				want[c.key] = map[string]bool{}
			}
			want[c.key][c.user] = true
		}
	}
	for i := range 4 {
		k := channel.Key{App: "1", Name: fmt.Sprintf("presence-%d", i)}
		have := map[string]bool{}
		for u := range s.owner.members[k] {
			have[u] = true
		}
		if !maps.Equal(have, want[k]) && len(have)+len(want[k]) > 0 {
			s.t.Errorf("members of %s: owner has %v, connections are %v", k, have, want[k])
		}
		if got := s.owner.counts[k]; got != uint64(s.counts[k]) {
			s.t.Errorf("count of %s: owner has %d, want %d", k, got, s.counts[k])
		}
	}
	for i := range 3 {
		k := onlineKey("1", fmt.Sprint(i))
		if s.owner.online[k] != (s.online[k] > 0) {
			s.t.Errorf("%s: owner says %v, connections %d", k, s.owner.online[k], s.online[k])
		}
	}
}

func runSim(t *testing.T, seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &sim{
		t: t, rng: rng, shard: newShard(0), owner: newModel(2 + rng.IntN(6)), now: time.Unix(1_700_000_000, 0),
		counts: map[channel.Key]int{}, online: map[channel.Key]int{},
	}
	if rng.IntN(2) == 0 {
		s.shard.bytesMax = 100 + rng.IntN(400) // some operations
	}
	for range steps {
		s.step()
		if t.Failed() {
			return
		}
	}
	s.settle()
	s.check()
	// Everything goes: nothing may stay behind, here or at the owner.
	for _, c := range s.conns {
		if c.joined && !c.left {
			c.left = true
			s.shard.leave(c.key, c.user)
		}
	}
	for k, n := range s.counts {
		s.counts[k] = 0
		s.shard.subscribed(k, -n)
	}
	for k, n := range s.online {
		s.online[k] = 0
		s.shard.signedIn(k, -n)
	}
	s.settle()
	s.check()
	if len(s.shard.entries) > 0 {
		t.Errorf("%d entries stay behind", len(s.shard.entries))
	}
}

func TestSimulation(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		if runSim(t, seed, 400); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzSimulation(f *testing.F) {
	f.Add(uint64(1), uint16(100))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) { runSim(t, seed, int(steps%2000)) })
}

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
