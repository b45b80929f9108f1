// Package chaos runs a real cluster of processes over three NATS servers,
// breaks one part after the other, and records what publishers and subscribers
// saw of it. Whether that was right is for package model to say.
package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/chaos/schedule"
	"github.com/carillon-rt/carillon/tests/env"
)

// Config is what a run consists of.
type Config struct {
	Seed  uint64
	For   time.Duration // faults begin for so long
	Kinds []schedule.Kind
	// Spare are roles that are not broken.
	Spare []string
	// Members: subscribers and guests are members of presence channels.
	Members bool
	// Every is how often each publisher publishes, at most.
	Every time.Duration
	// LogDir takes the logs of all processes.
	LogDir string
}

// How many of each there are.
const (
	gateways    = 2
	routers     = 2
	presences   = 2
	authorizers = 2
	apis        = 2
	brokers     = 3

	// historySize is more than anybody misses of a channel.
	historySize = 5000

	publishers  = 4
	subscribers = 6
	guests      = 6
	guestUsers  = 4 // fewer than guests: some are there twice
)

// The channels of a run. Subscribers are on all of them.
var (
	durableChannels = []string{"durable-0", "durable-1", "durable-2", "durable-3"}
	liveChannels    = []string{"live-0", "live-1"}
	memberChannels  = []string{"presence-0", "presence-1"}
)

// Channels tells the model of them.
func Channels() model.Channels {
	return model.Channels{
		Durable:  func(c string) bool { return strings.HasPrefix(c, "durable-") },
		Presence: func(c string) bool { return strings.HasPrefix(c, "presence-") },
	}
}

// world is a cluster, and those who use it.
type world struct {
	t       testing.TB
	cluster *env.Cluster
	gates   []*env.Node
	apis    []*env.Node
	rec     *record.Recorder
	dir     string // of the logs
	// presence channels that are used
	presence []string

	sessions atomic.Int64      // numbers connections
	stalls   atomic.Int64      // of the machine
	ended    map[string]bool   // processes, by a fault
	rounds   int               // of questions
	heal     map[string]func() // ends splits, by their faults' text
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	c := env.Start(t, env.Apart(gateways), env.Brokers(brokers), env.Proxied(), env.Routers(routers), env.PresenceNodes(presences),
		env.Authorizers(authorizers), env.APIs(apis), env.LogDir(cfg.LogDir), env.History(historySize, cfg.For+time.Hour))
	w := &world{t: t, cluster: c, gates: c.Gateways, rec: record.New(), dir: cfg.LogDir, ended: map[string]bool{}, heal: map[string]func(){}}
	if cfg.Members {
		w.presence = memberChannels
	}
	for _, n := range c.Nodes {
		if role(n.Name) == "api" {
			w.apis = append(w.apis, n)
		}
	}
	return w
}

// role is the role of a process by its name.
func role(name string) string {
	r, _, _ := strings.Cut(name, "-")
	return r
}

func (w *world) topology(spare []string) schedule.Topology {
	// Members of a gateway that dies together with all presence nodes are
	// forgotten, which nobody can be told.
	top := schedule.Topology{Roles: map[string][]string{}, Indispensable: []string{"presence"}}
	for _, n := range w.cluster.Nodes {
		if slices.Contains(spare, role(n.Name)) {
			continue
		}
		top.Roles[role(n.Name)] = append(top.Roles[role(n.Name)], n.Name)
	}
	for _, b := range w.cluster.Brokers {
		top.Brokers = append(top.Brokers, b.Name)
	}
	return top
}

// Run breaks a cluster for a while, mends it, and gives the record of that. It
// ends the test only when the run itself can't be carried out.
func Run(t testing.TB, cfg Config) []record.Entry {
	t.Helper()
	w := newWorld(t, cfg)
	busy, calm := context.WithCancel(t.Context())
	defer calm()
	present, leave := context.WithCancel(t.Context())
	defer leave()
	var publishing, staying, visiting sync.WaitGroup
	staying.Go(func() { w.watchMachine(present) })
	for i := range subscribers {
		s := &subscriber{world: w, name: fmt.Sprint("subscriber-", i), keeps: i%2 == 0, places: map[string]place{}, rng: stream(cfg.Seed, "subscriber", i)}
		staying.Go(func() { s.run(present) })
	}
	for i := range guests * len(w.presence) / len(memberChannels) {
		g := &guest{world: w, name: fmt.Sprint("guest-", i), user: fmt.Sprint("visitor-", i%guestUsers), rng: stream(cfg.Seed, "guest", i)}
		visiting.Go(func() { g.run(busy, present) })
	}
	w.awaitSubscribers()
	for i := range publishers {
		p := &publisher{world: w, name: fmt.Sprint("publisher-", i), every: cfg.Every, rng: stream(cfg.Seed, "publisher", i)}
		publishing.Go(func() { p.run(busy) })
	}
	w.breakThings(cfg)
	calm()
	publishing.Wait()
	entries := w.end()
	leave()
	staying.Wait()
	visiting.Wait()
	return entries
}

// stream is the randomness of one actor.
func stream(seed uint64, kind string, i int) *rand.Rand {
	h := uint64(i + 1)
	for _, c := range kind {
		h = h*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, h))
}

// wait returns after d, or false when ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// jitter is a duration around d, half to one and a half of it.
func jitter(rng *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(rng.Int64N(int64(d)))
}
