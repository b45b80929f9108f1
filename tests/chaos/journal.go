package chaos

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/env"
)

// journal reads all publications from the stream itself, past the routers.
type journal struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	next    uint64 // sequence
	entries []record.Entry
}

func openJournal(c *env.Cluster) (*journal, error) {
	var urls []string
	for _, b := range c.Brokers {
		urls = append(urls, b.URL())
	}
	nc, err := nats.Connect(strings.Join(urls, ","))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &journal{nc: nc, js: js, next: 1}, nil
}

func (j *journal) close() { j.nc.Close() }

// readAtOnce is how many batches are asked for at a time.
const readAtOnce = 2000

// read goes on to the present end of the stream.
func (j *journal) read(ctx context.Context) error {
	log, err := j.js.Stream(ctx, subject.JournalStream)
	if err != nil {
		return err
	}
	state := log.CachedInfo().State
	if state.FirstSeq > j.next {
		return fmt.Errorf("it begins at %d, want %d", state.FirstSeq, j.next)
	}
	if j.next > state.LastSeq {
		return nil
	}
	from, err := log.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: j.next,
	})
	if err != nil {
		return err
	}
	for j.next <= state.LastSeq {
		batches, err := from.Fetch(int(min(readAtOnce, state.LastSeq-j.next+1)), jetstream.FetchContext(ctx))
		if err != nil {
			return err
		}
		for m := range batches.Messages() {
			if err := j.take(m); err != nil {
				return fmt.Errorf("batch %d of %d: %w", j.next, state.LastSeq, err)
			}
		}
		if err := batches.Error(); err != nil {
			return fmt.Errorf("batch %d of %d: %w", j.next, state.LastSeq, err)
		}
	}
	return nil
}

func (j *journal) take(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	if meta.Sequence.Stream != j.next {
		return fmt.Errorf("got %d", meta.Sequence.Stream)
	}
	j.next++
	batch := message.NewReader(m.Data())
	var p message.Publication
	for batch.Next(&p) {
		j.entries = append(j.entries, record.Entry{
			Kind: record.Journal, Channel: strings.Clone(p.Channel), ID: string(p.Data),
			Position: uint64(message.At(meta.Sequence.Stream, batch.Index())),
		})
	}
	return batch.Err()
}
