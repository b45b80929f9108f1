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
	for ; j.next <= state.LastSeq; j.next++ {
		m, err := log.GetMsg(ctx, j.next)
		if err != nil {
			return fmt.Errorf("batch %d of %d: %w", j.next, state.LastSeq, err)
		}
		if err := j.take(m); err != nil {
			return fmt.Errorf("batch %d: %w", j.next, err)
		}
	}
	return nil
}

func (j *journal) take(m *jetstream.RawStreamMsg) error {
	batch := message.NewReader(m.Data)
	var p message.Publication
	for batch.Next(&p) {
		j.entries = append(j.entries, record.Entry{
			Kind: record.Journal, Channel: strings.Clone(p.Channel), ID: string(p.Data),
			Position: uint64(message.At(m.Sequence, batch.Index())),
		})
	}
	return batch.Err()
}
