// Package journal owns the streams: it sets them up, knows the epoch of the
// log, and writes batches of publications to it, one at a time per partition.
// It knows nothing of who publishes or reads.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/subject"

	"github.com/carillon-rt/carillon/router/internal/stream"
)

const (
	checkInterval = 2 * time.Second
	checkTimeout  = 5 * time.Second
	// backwardsChecks is how many looks in a row must show a journal that ends
	// below what was acknowledged: a new stream leader may lag for a moment.
	backwardsChecks = 3
)

// Config is what the streams look like.
type Config struct {
	Replicas          int
	LogBytes          int64
	IngestBytes       int64
	IngestAge         time.Duration
	IdempotencyWindow time.Duration
	// Retention is the age limit of the log now: it follows the apps' policies,
	// and is only ever raised while the router runs.
	Retention func() time.Duration
}

// Journal is the log of all partitions.
type Journal struct {
	// immutable after Open
	cfg Config
	js  jetstream.JetStream
	kv  jetstream.KeyValue
	log *slog.Logger
	// Clock is what live batches are stamped with.
	Clock *Clock

	// atomic
	epoch   atomic.Pointer[string]
	highest atomic.Uint64          // newest sequence seen in this epoch
	reused  atomic.Pointer[string] // the epoch in which a sequence was given again

	// owned by Open, then by Run
	created    time.Time
	generation uint64
	partitions int // 0 while unknown
	suspicions int
	kick       chan struct{}
}

// Open creates or updates the streams and reads the epoch.
func Open(ctx context.Context, cfg Config, js jetstream.JetStream, log *slog.Logger) (*Journal, error) {
	j := &Journal{cfg: cfg, js: js, log: log, Clock: NewClock(), kick: make(chan struct{}, 1)}
	if err := j.setUp(ctx); err != nil {
		return nil, err
	}
	return j, nil
}

// Partitions gives the cluster's partition count, which is want when nobody
// has decided yet. Run keeps it there. It is called before Run.
func (j *Journal) Partitions(ctx context.Context, want int) (int, error) {
	n, err := cluster.Partitions(ctx, j.js, want, j.cfg.Replicas)
	j.partitions = n
	return n, err
}

// Epoch names the present life of the log.
func (j *Journal) Epoch() string { return *j.epoch.Load() }

// setEpoch publishes the epoch that created and generation make.
func (j *Journal) setEpoch() {
	epoch := cluster.Epoch(j.created, j.generation)
	j.epoch.Store(&epoch)
}

// Now is the time of the clock that routers share, in microseconds.
func (j *Journal) Now() uint64 { return j.Clock.Now() }

// Observe reports a sequence that the log has reached.
func (j *Journal) Observe(seq uint64) {
	for {
		high := j.highest.Load()
		if seq <= high || j.highest.CompareAndSwap(high, seq) {
			return
		}
	}
}

// Highest is the newest sequence of the log, of all partitions, that this
// router has seen in this epoch. It is no older than a few seconds.
func (j *Journal) Highest() uint64 { return j.highest.Load() }

// reach gives the epoch and what the log has reached in it. Of two epochs that
// meet here it gives the older one.
func (j *Journal) reach() (epoch string, highest uint64) {
	epoch = j.Epoch()
	return epoch, j.Highest()
}

// Check asks Run to look at the stream now.
func (j *Journal) Check() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// Reused reports that something was stored at a sequence that the log had
// reached before in an epoch: the next look begins another one.
func (j *Journal) Reused(epoch string) {
	j.reused.Store(&epoch)
	j.Check()
}

// Bounds gives the first and last sequence of the log: 1 and 0 when it is new.
func (j *Journal) Bounds(ctx context.Context) (first, last uint64, err error) {
	log, err := j.js.Stream(ctx, subject.JournalStream)
	if err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", subject.JournalStream, err)
	}
	state := log.CachedInfo().State
	return max(state.FirstSeq, 1), state.LastSeq, nil
}

// setUp creates or updates the streams. A stream that is new has a new epoch.
func (j *Journal) setUp(ctx context.Context) error {
	log, err := stream.SetUp(ctx, j.js, j.cfg.logStream(j.cfg.Retention()), j.log)
	if err != nil {
		return err
	}
	if _, err := stream.SetUp(ctx, j.js, j.cfg.ingestStream(), j.log); err != nil {
		return err
	}
	if err := j.keepFacts(ctx); err != nil {
		return err
	}
	if j.generation, err = cluster.Generation(ctx, j.kv); err != nil {
		return err
	}
	info := log.CachedInfo()
	j.created = info.Created
	j.highest.Store(info.State.LastSeq)
	j.setEpoch()
	return nil
}

// keepFacts makes the bucket, and puts the partition count back when it was
// lost with it: everybody hashes by that.
func (j *Journal) keepFacts(ctx context.Context) error {
	kv, err := cluster.Bucket(ctx, j.js, j.cfg.Replicas)
	if err != nil {
		return err // the old one is asked again
	}
	if j.kv = kv; j.partitions == 0 {
		return nil
	}
	n, err := cluster.Partitions(ctx, j.js, j.partitions, j.cfg.Replicas)
	if err == nil && n != j.partitions {
		j.log.Error("the partition count of the cluster has changed: restart all nodes", "was", j.partitions, "is", n)
	}
	return err
}

func (c Config) logStream(retention time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: subject.JournalStream, Description: "batches of publications, one subject per partition",
		Subjects: []string{subject.AllLog}, Storage: jetstream.FileStorage, Replicas: max(c.Replicas, 1),
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: retention, MaxBytes: c.LogBytes, MaxMsgsPerSubject: -1,
		AllowDirect: true, Duplicates: min(c.IdempotencyWindow, retention),
		RePublish: &jetstream.RePublish{Source: subject.AllLog, Destination: subject.RePublish},
	}
}

func (c Config) ingestStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: subject.IngestStream, Description: "plain publishes by backends",
		Subjects: []string{subject.AllIngest}, Storage: jetstream.FileStorage, Replicas: max(c.Replicas, 1),
		Retention: jetstream.WorkQueuePolicy,
		// A full queue refuses the publisher instead of dropping what waits.
		Discard: jetstream.DiscardNew, MaxAge: c.IngestAge, MaxBytes: c.IngestBytes,
	}
}

// Run keeps an eye on the stream until ctx ends: it is created again when it
// is gone, its retention follows the policies, and the generation is raised
// when its sequences went backwards.
func (j *Journal) Run(ctx context.Context) error {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-j.kick:
		}
		if err := j.check(ctx); err != nil && ctx.Err() == nil {
			j.log.Warn("the journal can't be checked", "err", err)
		}
	}
}

func (j *Journal) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	high := j.highest.Load() // before the look: what is acknowledged after it proves nothing
	log, err := j.js.Stream(ctx, subject.JournalStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		j.log.Error("the journal's stream is gone, creating it again: a new epoch begins", "stream", subject.JournalStream)
		return j.setUp(ctx)
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", subject.JournalStream, err)
	}
	info := log.CachedInfo()
	generation, err := cluster.Generation(ctx, j.kv)
	if err != nil {
		return errors.Join(err, j.keepFacts(ctx)) // the next look finds it
	}
	if !info.Created.Equal(j.created) || generation != j.generation {
		j.created, j.generation, j.suspicions = info.Created, generation, 0
		j.highest.Store(info.State.LastSeq)
		j.setEpoch()
		j.log.Warn("a new epoch of the journal has begun", "epoch", j.Epoch())
		return nil
	}
	if err := j.raiseRetention(ctx, info.Config); err != nil {
		return err
	}
	if reused := j.reused.Load(); reused != nil && *reused == j.Epoch() {
		return j.beginEpoch(ctx, info.State.LastSeq, high)
	}
	return j.checkBackwards(ctx, info, high)
}

// hasLeader says whether the answer is that of the stream's leader. While it
// has none each server tells of its own copy, which may be an old one.
func hasLeader(info *jetstream.StreamInfo) bool {
	return info.Cluster == nil || info.Cluster.Leader != ""
}

// raiseRetention makes the log keep what the policies want. Another router,
// with fewer apps, may have lowered it.
func (j *Journal) raiseRetention(ctx context.Context, cfg jetstream.StreamConfig) error {
	want := j.cfg.Retention()
	if want <= cfg.MaxAge {
		return nil
	}
	cfg.MaxAge, cfg.Duplicates = want, min(j.cfg.IdempotencyWindow, want)
	if _, err := j.js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("raise the retention of %s to %s: %w", subject.JournalStream, want, err)
	}
	j.log.Info("the journal keeps publications for longer now", "retention", want)
	return nil
}

// checkBackwards raises the generation when the stream ends below what was
// acknowledged, as its leader says again and again.
func (j *Journal) checkBackwards(ctx context.Context, info *jetstream.StreamInfo, high uint64) error {
	last := info.State.LastSeq
	if last < high && !hasLeader(info) {
		return nil
	}
	if last >= high {
		j.suspicions = 0
		j.Observe(last)
		return nil
	}
	if j.suspicions++; j.suspicions < backwardsChecks {
		return nil
	}
	return j.beginEpoch(ctx, last, high)
}

// beginEpoch raises the generation: the log, which had reached high, went
// backwards, and ends at last by now.
func (j *Journal) beginEpoch(ctx context.Context, last, high uint64) error {
	generation, err := cluster.BumpGeneration(ctx, j.kv, j.generation)
	if err != nil {
		return err
	}
	j.generation, j.suspicions = generation, 0
	j.highest.Store(last)
	j.setEpoch()
	j.log.Error("the journal lost acknowledged sequences: a new epoch begins", "had", high, "has", last, "epoch", j.Epoch())
	return nil
}
