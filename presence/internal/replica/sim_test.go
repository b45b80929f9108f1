package replica_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this one seed of the simulator, with a log")
	seedsFlag = flag.Int("seeds", 60, "seeds of each simulator test besides those in testdata/seeds")
)

// chaos says what may happen to a simulated cluster.
type chaos struct {
	loss    bool // deltas, replies and requests for snapshots get lost or come twice
	restart bool // gateways die and come back, or not
	moves   bool // presence nodes join and leave in good order
	crashes bool // presence nodes die, one at a time
	stalls  bool // presence nodes stand still for a while, and are taken for dead
	gossip  bool // presence nodes lose sight of each other for a while, and begin alone
	lost    bool // gateways are cut off for a while, and taken for dead
}

// TestSimulateStrict: whatever gets lost, and while ownership moves in good
// order, every event is announced exactly once.
func TestSimulateStrict(t *testing.T) {
	simulate(t, "strict", chaos{loss: true, restart: true, moves: true, gossip: true, lost: true})
}

// TestSimulateCrash: owners die without a word. An event in flight may be
// announced twice then; what subscribers believe in the end is still true.
func TestSimulateCrash(t *testing.T) {
	simulate(t, "crash", chaos{loss: true, restart: true, moves: true, crashes: true, stalls: true, gossip: true, lost: true})
}

func simulate(t *testing.T, name string, c chaos) {
	var seeds []uint64
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	} else {
		seeds = savedSeeds(t, name)
		for range *seedsFlag {
			seeds = append(seeds, rand.Uint64())
		}
		for i := range uint64(20) {
			seeds = append(seeds, i+1)
		}
	}
	for _, seed := range seeds {
		s := newSim(seed, c)
		if err := s.run(); err != nil {
			if *seedFlag != 0 {
				t.Log(strings.Join(s.log, "\n"))
			}
			t.Fatalf("seed %d: %v\nrepeat: go test ./internal/replica -run %s -seed %d\nkeep it: echo %d >> internal/replica/testdata/seeds/%s.txt",
				seed, err, t.Name(), seed, seed, name)
		}
		if *seedFlag != 0 {
			t.Log(strings.Join(s.log, "\n"))
		}
	}
}

// savedSeeds are seeds that failed once.
func savedSeeds(t *testing.T, name string) []uint64 {
	data, err := os.ReadFile("testdata/seeds/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	var seeds []uint64
	for word := range strings.FieldsSeq(string(data)) {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds/%s.txt: %v", name, err)
		}
		seeds = append(seeds, n)
	}
	return seeds
}

const (
	simStart    = 1_000_000
	simChaosMs  = 20_000
	simQuietMs  = 40_000
	simMembers  = 4 // member limit
	simUsers    = 6
	simGateways = 3
)

var simChannels = []string{"presence-a", "news"}

// sim is a cluster in one goroutine: nodes and gateways are structs, messages
// are functions in a queue with a time.
type sim struct {
	rng   *rand.Rand
	cuts  *rand.Rand // of gossip, so that seeds from before mean what they meant
	away  *rand.Rand // of gateways, for the same reason
	chaos chaos
	app   *app.App

	now    int64
	n      int
	events []event
	nodes  map[string]*node
	gws    map[string]*gw
	died   map[string]int64 // runs of gateways
	calm   bool
	lastOp int64 // of a presence node's coming or going
	views  int

	// what subscribers believe
	members map[string]bool   // channel/user
	online  map[string]bool   // channel
	counts  map[string]uint64 // channel
	version uint64
	err     error
	log     []string
}

type event struct {
	at  int64
	n   int // events of the same time run in this order
	run func()
}

func newSim(seed uint64, c chaos) *sim {
	apps, err := app.NewRegistry([]app.App{{
		ID: "1", Keys: []app.Key{{Key: "k", Secret: "s"}}, SubscriptionCount: true,
		Limits: app.Limits{PresenceMembers: simMembers},
	}})
	if err != nil {
		panic(err)
	}
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 1)), cuts: rand.New(rand.NewPCG(seed, 2)),
		away: rand.New(rand.NewPCG(seed, 3)), chaos: c, app: apps.ByID("1"), now: simStart,
		nodes: map[string]*node{}, gws: map[string]*gw{}, died: map[string]int64{},
		members: map[string]bool{}, online: map[string]bool{}, counts: map[string]uint64{},
	}
	s.addNode("p2")
	s.addNode("p3")
	for i := range simGateways {
		s.startGateway(fmt.Sprintf("g%d", i))
	}
	return s
}

func (s *sim) logf(format string, args ...any) {
	if *seedFlag != 0 {
		s.log = append(s.log, fmt.Sprintf("%6d ", s.now-simStart)+fmt.Sprintf(format, args...))
	}
}

func (s *sim) after(ms int64, run func()) {
	s.n++
	e := event{s.now + ms, s.n, run}
	i, _ := slices.BinarySearchFunc(s.events, e, func(a, b event) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.n - b.n
	})
	s.events = slices.Insert(s.events, i, e)
}

// send delivers after a random time; with loss on also not at all or twice.
func (s *sim) send(run func()) {
	copies := 1
	if s.chaos.loss && !s.calm {
		switch s.rng.IntN(20) {
		case 0:
			copies = 0
		case 1:
			copies = 2
		}
	}
	for range copies {
		s.after(s.delay(), run)
	}
}

func (s *sim) delay() int64 { return 1 + s.rng.Int64N(10) }

func (s *sim) run() error {
	// What happens while the first owner collects its snapshots is taken as known.
	s.after(3000, s.mischief)
	s.after(3000, s.cutGossip)
	s.after(3000, s.stall)
	s.after(3000, s.lose)
	for s.err == nil && len(s.events) > 0 && s.now < simStart+simChaosMs+simQuietMs {
		e := s.events[0]
		s.events = s.events[1:]
		s.now = e.at
		e.run()
		if !s.calm && s.now >= simStart+simChaosMs {
			s.calm = true
		}
	}
	if s.err != nil {
		return s.err
	}
	return s.verify()
}

func (s *sim) failf(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("at %d: %s", s.now-simStart, fmt.Sprintf(format, args...))
	}
}

// mischief changes something now and then.
func (s *sim) mischief() {
	if s.calm {
		return
	}
	s.after(1+s.rng.Int64N(60), s.mischief)
	names := slices.Sorted(maps.Keys(s.gws))
	g := s.gws[names[s.rng.IntN(len(names))]]
	switch {
	case s.rng.IntN(100) == 0 && s.chaos.restart:
		s.killGateway(g)
	case s.rng.IntN(60) == 0 && s.now-s.lastOp > 6000:
		s.changeNodes()
	default:
		g.change()
	}
}

// changeNodes lets a presence node come, go or die.
func (s *sim) changeNodes() {
	names := slices.Sorted(maps.Keys(s.nodes))
	pick := names[s.rng.IntN(len(names))]
	switch {
	case len(names) < 3 && s.chaos.moves:
		for _, name := range []string{"p1", "p2", "p3", "p4"} {
			if s.nodes[name] == nil {
				s.addNode(name)
				break
			}
		}
	case len(names) > 1 && s.chaos.crashes && s.rng.IntN(2) == 0:
		s.crashNode(pick)
	case len(names) > 1 && s.chaos.moves:
		s.leaveNode(pick)
	}
}

// cutGossip hides some presence nodes from one of them for a while.
func (s *sim) cutGossip() {
	if s.calm || !s.chaos.gossip {
		return
	}
	s.after(500+s.cuts.Int64N(6000), s.cutGossip)
	long := s.cuts.Int64N(5000)
	if s.chaos.crashes { // one fault at a time: what only the dead knew is lost
		if s.now-s.lastOp <= 6000 {
			return
		}
		s.lastOp = s.now + long
	}
	names := sorted(s.nodes)
	n := s.nodes[names[s.cuts.IntN(len(names))]]
	n.view = slices.DeleteFunc(s.view(), func(v string) bool { return !strings.HasPrefix(v, n.name+" ") && s.cuts.IntN(2) == 0 })
	s.logf("node %s sees %v", n.name, n.view)
	n.do(n.assign)
	s.after(long, s.spreadView)
}

// stall stops a presence node for a while. The membership finds it dead when
// that lasts, and alive again afterwards.
func (s *sim) stall() {
	if s.calm || !s.chaos.stalls {
		return
	}
	s.after(1000+s.cuts.Int64N(3000), s.stall)
	if s.now-s.lastOp <= 6000 {
		return
	}
	names := sorted(s.nodes)
	n := s.nodes[names[s.cuts.IntN(len(names))]]
	long := s.cuts.Int64N(4000)
	s.logf("node %s stands still for %d", n.name, long)
	n.stalledTill, s.lastOp = s.now+long, s.now+long
	if long > 1500 {
		s.after(1500, func() {
			s.spread(n.name, slices.DeleteFunc(s.view(), func(v string) bool { return strings.HasPrefix(v, n.name+" ") }))
		})
	}
	s.after(long, s.spreadView)
}

// lose cuts a gateway off for a while. When that lasts, the membership finds it
// dead, and then alive again.
func (s *sim) lose() {
	if s.calm || !s.chaos.lost {
		return
	}
	s.after(1000+s.away.Int64N(4000), s.lose)
	if s.now-s.lastOp <= 6000 {
		return
	}
	names := sorted(s.gws)
	g := s.gws[names[s.away.IntN(len(names))]]
	long := s.away.Int64N(4000)
	s.logf("gateway %s is cut off for %d", g.name, long)
	g.cutOff, s.lastOp = true, s.now+long
	if long > 1500 {
		s.after(1500, func() {
			g.gone = true
			s.spreadView()
		})
	}
	s.after(long, func() {
		g.cutOff, g.gone = false, false
		s.spreadView()
	})
}

// alive are the gateways that the membership shows.
func (s *sim) alive() (names []string) {
	for _, name := range sorted(s.gws) {
		if !s.gws[name].gone {
			names = append(names, name)
		}
	}
	return names
}

// announce is what the live subjects carry.
func (s *sim) announce(by string, effects []state.Effect) {
	for _, e := range effects {
		s.logf("%s announces %d %s %s count %d version %d", by, e.Kind, e.Key.Name, e.Member.ID, e.Count, e.Version)
		if e.Version <= s.version && !s.chaos.crashes {
			s.failf("version %d of %s after %d", e.Version, by, s.version)
		}
		s.version = max(s.version, e.Version)
		switch e.Kind {
		case state.MemberAdded:
			s.flip(s.members, e.Key.Name+"/"+e.Member.ID, true)
		case state.MemberRemoved:
			s.flip(s.members, e.Key.Name+"/"+e.Member.ID, false)
		case state.Online:
			s.flip(s.online, e.Key.Name, true)
		case state.Offline:
			s.flip(s.online, e.Key.Name, false)
		case state.Count:
			s.counts[e.Key.Name] = e.Count
		}
	}
}

// flip checks that added and removed, online and offline alternate.
func (s *sim) flip(set map[string]bool, key string, on bool) {
	if set[key] == on && !s.chaos.crashes {
		s.failf("%s announced as %v twice", key, on)
	}
	delete(set, key)
	if on {
		set[key] = true
	}
}

// verify compares what everybody believes with the gateways' connections.
func (s *sim) verify() error {
	members, online, counts := map[string]bool{}, map[string]bool{}, map[string]uint64{}
	for _, g := range s.gws {
		for ch, users := range g.users {
			for u := range users {
				members[ch+"/"+u] = true
			}
		}
		for ch := range g.online {
			online[ch] = true
		}
		for ch, n := range g.counts {
			if n > 0 {
				counts[ch] += n
			}
		}
		if len(g.pending) > 0 || g.flight != nil {
			return fmt.Errorf("gateway %s is not done: %d pending, %v in flight", g.name, len(g.pending), g.flight)
		}
	}
	owners := 0
	for _, n := range s.nodes {
		if n.r.Role() == replica.Owner {
			owners++
		}
		if n.r.Role() == replica.None {
			continue
		}
		if err := n.compare(members, online, counts); err != nil {
			return err
		}
	}
	if owners != 1 {
		return fmt.Errorf("%d owners", owners)
	}
	if !maps.Equal(s.members, members) {
		return fmt.Errorf("subscribers believe in members %v, true are %v", sorted(s.members), sorted(members))
	}
	if !maps.Equal(s.online, online) {
		return fmt.Errorf("subscribers believe in online %v, true are %v", sorted(s.online), sorted(online))
	}
	if n := counts["news"]; n > 0 && s.counts["news"] != n {
		return fmt.Errorf("subscribers believe in count %d, true is %d", s.counts["news"], n)
	}
	return nil
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// compare asks a replica's state.
func (n *node) compare(members, online map[string]bool, counts map[string]uint64) error {
	got := map[string]bool{}
	for _, ch := range simChannels {
		a := n.r.Shard().Query(&presence.Query{App: "1", Channel: ch, Members: true}, n.sim.now)
		var subs uint64
		for _, info := range a.Channels {
			subs = uint64(info.Subscriptions)
			for _, m := range info.Members {
				got[ch+"/"+m.ID] = true
			}
		}
		if subs != counts[ch] {
			return fmt.Errorf("%s (role %d) counts %d on %s, true is %d", n.name, n.r.Role(), subs, ch, counts[ch])
		}
	}
	if !maps.Equal(got, members) {
		return fmt.Errorf("%s (role %d) has members %v, true are %v", n.name, n.r.Role(), sorted(got), sorted(members))
	}
	if _, _, on := n.r.Shard().Size(); on != len(online) {
		return fmt.Errorf("%s (role %d) has %d online, true are %d", n.name, n.r.Role(), on, len(online))
	}
	return nil
}
