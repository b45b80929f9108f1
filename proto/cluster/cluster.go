// Package cluster reads and writes the facts that a whole cluster shares and
// that never change by configuration alone: its partition count and its
// generation. They live in a NATS KV bucket. It knows nothing of nodes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

// Keys in subject.ConfigBucket.
const (
	PartitionsKey = "cluster.partitions"
	GenerationKey = "cluster.generation"
)

// PartitionsMax bounds the partition count: each is a subscription and a
// batch of its own in every gateway.
const PartitionsMax = 1024

const (
	pollWait  = 100 * time.Millisecond
	awaitMost = time.Minute
)

// Bucket opens subject.ConfigBucket and creates it when it is missing, with
// that many replicas (1 if 0). An existing bucket keeps its own.
func Bucket(ctx context.Context, js jetstream.JetStream, replicas int) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, subject.ConfigBucket)
	if err == nil {
		return kv, nil
	}
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("open bucket %s: %w", subject.ConfigBucket, err)
	}
	kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: subject.ConfigBucket, Description: "apps and facts of the cluster",
		History: 1, Storage: jetstream.FileStorage, Replicas: max(replicas, 1),
	})
	if errors.Is(err, jetstream.ErrBucketExists) { // somebody else was quicker
		kv, err = js.KeyValue(ctx, subject.ConfigBucket)
	}
	if err != nil {
		return nil, fmt.Errorf("create bucket %s: %w", subject.ConfigBucket, err)
	}
	return kv, nil
}

// Partitions gives the cluster's partition count. The first caller with
// want > 0 decides it for the life of the cluster, in a bucket with that many
// replicas; later ones get what is stored and should warn when it differs
// from want. With want 0 it waits until somebody has decided, or ctx ends.
func Partitions(ctx context.Context, js jetstream.JetStream, want, replicas int) (int, error) {
	if want < 0 || want > PartitionsMax {
		return 0, fmt.Errorf("partitions is %d, want 1 to %d", want, PartitionsMax)
	}
	if want > 0 {
		kv, err := Bucket(ctx, js, replicas)
		if err != nil {
			return 0, err
		}
		_, err = kv.Create(ctx, PartitionsKey, []byte(strconv.Itoa(want)))
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return 0, fmt.Errorf("store the partition count: %w", err)
		}
		return readPartitions(ctx, kv)
	}
	return awaitPartitions(ctx, js)
}

// AwaitPartitions is Partitions for a process that does not decide the count:
// it waits for the first router for a minute at most, then the process had
// better end and be started again.
func AwaitPartitions(ctx context.Context, nc *nats.Conn) (int, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, fmt.Errorf("open JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, awaitMost)
	defer cancel()
	return Partitions(ctx, js, 0, 0)
}

func awaitPartitions(ctx context.Context, js jetstream.JetStream) (int, error) {
	for {
		kv, err := js.KeyValue(ctx, subject.ConfigBucket)
		if err == nil {
			var n int
			if n, err = readPartitions(ctx, kv); err == nil {
				return n, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no router has set the partition count yet: %w", errors.Join(ctx.Err(), err))
		case <-time.After(pollWait):
		}
	}
}

func readPartitions(ctx context.Context, kv jetstream.KeyValue) (int, error) {
	entry, err := kv.Get(ctx, PartitionsKey)
	if err != nil {
		return 0, fmt.Errorf("read the partition count: %w", err)
	}
	n, err := strconv.Atoi(string(entry.Value()))
	if err != nil || n < 1 || n > PartitionsMax {
		return 0, fmt.Errorf("%s in bucket %s is %q, want a number from 1 to %d",
			PartitionsKey, subject.ConfigBucket, entry.Value(), PartitionsMax)
	}
	return n, nil
}

// Generation gives how often the journal's sequences went backwards; 0 when
// never.
func Generation(ctx context.Context, kv jetstream.KeyValue) (uint64, error) {
	n, _, err := generation(ctx, kv)
	return n, err
}

func generation(ctx context.Context, kv jetstream.KeyValue) (n, revision uint64, err error) {
	entry, err := kv.Get(ctx, GenerationKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the generation: %w", err)
	}
	n, err = strconv.ParseUint(string(entry.Value()), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%s in bucket %s is %q, want a number", GenerationKey, subject.ConfigBucket, entry.Value())
	}
	return n, entry.Revision(), nil
}

// BumpGeneration raises the generation above from and returns it. When
// somebody else has done so already, theirs is returned.
func BumpGeneration(ctx context.Context, kv jetstream.KeyValue, from uint64) (uint64, error) {
	n, revision, err := generation(ctx, kv)
	if err != nil || n > from {
		return n, err
	}
	value := []byte(strconv.FormatUint(from+1, 10))
	if _, err = kv.Update(ctx, GenerationKey, value, revision); err == nil {
		return from + 1, nil
	}
	if n, again := Generation(ctx, kv); again == nil && n > from {
		return n, nil // lost the race, which is as good
	}
	return 0, fmt.Errorf("raise the generation: %w", err)
}

// Epoch names one life of the journal: positions of different epochs can't
// be compared.
func Epoch(created time.Time, generation uint64) string {
	epoch := strconv.FormatInt(created.UnixMicro(), 36)
	if generation > 0 {
		epoch += "." + strconv.FormatUint(generation, 36)
	}
	return epoch
}
