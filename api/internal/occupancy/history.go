package occupancy

import (
	"context"
	"fmt"
	"sync"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// historyBytesMax bounds the data of one read of a channel's history.
const historyBytesMax = 16 << 20

// mark is the newest position of a partition that this node was told of: who
// publishes and then reads here finds what was published.
type mark struct {
	mu sync.Mutex
	// guarded by mu
	epoch    string
	position message.Position
}

// Saw notes that a publication of the channel is stored at a position.
func (r *Reader) Saw(app, name, epoch string, at message.Position) {
	if at == 0 {
		return
	}
	m := r.mark(app, name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch != epoch {
		m.epoch, m.position = epoch, 0
	}
	m.position = max(m.position, at)
}

func (r *Reader) mark(app, name string) *mark {
	return &r.marks[channel.Key{App: app, Name: name}.Partition(r.cfg.Partitions)]
}

func (m *mark) least() message.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.position
}

// forget drops a mark of another epoch, which will never be reached. It says
// whether there was one.
func (m *mark) forget(epoch string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == "" || m.epoch == epoch || m.position == 0 {
		return false
	}
	m.epoch, m.position = "", 0
	return true
}

// HistoryQuery is a read of a channel's history.
type HistoryQuery struct {
	// Since and Before are the positions between which it reads; Before 0 is
	// the end.
	Since, Before message.Position
	// Limit is how many publications it reads at most; with 0 it reads none,
	// only where the channel is.
	Limit int
	// Reverse reads the newest first.
	Reverse bool
}

// Past is what a channel's history has.
type Past struct {
	Epoch string
	// Top is where the channel is: a read since Top gives what comes next.
	Top          message.Position
	Publications []Kept
}

// Kept is a publication at its position.
type Kept struct {
	Position message.Position
	*message.Publication
}

// History reads the history of a channel, in the order that was asked for. Reads are cut at 16 MiB of publications.
func (r *Reader) History(ctx context.Context, app, name string, q HistoryQuery) (Past, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	ask := history.Request{App: app, Channel: name, Since: q.Since, Before: q.Before, Limit: q.Limit, Oldest: !q.Reverse}
	var past Past
	for bytes := 0; ; {
		reply, err := r.history(ctx, ask)
		if err != nil {
			return Past{}, err
		}
		if past.Epoch != "" && past.Epoch != reply.Epoch {
			return Past{}, fmt.Errorf("read history of %s: the journal has begun anew: %w", name, ErrUnavailable)
		}
		past.Epoch, past.Top = reply.Epoch, max(past.Top, top(&reply))
		n, err := past.add(reply.Entries, q.Reverse)
		if err != nil {
			return Past{}, fmt.Errorf("read history of %s: %w", name, err)
		}
		bytes += n
		if !reply.More || len(reply.Entries) == 0 || len(past.Publications) >= q.Limit || bytes >= historyBytesMax {
			return past, nil
		}
		last := past.Publications[len(past.Publications)-1].Position
		if ask.Limit = q.Limit - len(past.Publications); q.Reverse {
			ask.Before = last
		} else {
			ask.Since = last
		}
	}
}

// top is where the channel is. Of one that is not known any more the floor is:
// nothing of it is above.
func top(reply *history.Reply) message.Position {
	if reply.Top == 0 {
		return reply.Floor
	}
	return reply.Top
}

// add appends the entries of a reply and returns their size.
func (p *Past) add(entries []history.Entry, reverse bool) (bytes int, err error) {
	for i := range entries {
		e := &entries[i]
		if reverse {
			e = &entries[len(entries)-1-i]
		}
		pub, err := message.Parse(e.Publication)
		if err != nil {
			return bytes, err
		}
		bytes += len(e.Publication)
		p.Publications = append(p.Publications, Kept{e.Position, pub})
	}
	return bytes, nil
}

// history asks the routers once, and once more when what was published here
// belongs to an epoch that has ended.
func (r *Reader) history(ctx context.Context, ask history.Request) (history.Reply, error) {
	m := r.mark(ask.App, ask.Channel)
	to := subject.History(channel.Key{App: ask.App, Name: ask.Channel}.Partition(r.cfg.Partitions))
	for {
		var reply history.Reply
		ask.AtLeast = m.least()
		if err := r.ask(ctx, to, ask, &reply); err != nil {
			return reply, err
		}
		if reply.Error == "" {
			return reply, nil
		}
		if !m.forget(reply.Epoch) {
			return reply, fmt.Errorf("read history of %s: %s: %w", ask.Channel, reply.Error, ErrUnavailable)
		}
	}
}
