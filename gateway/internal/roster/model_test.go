package roster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

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
