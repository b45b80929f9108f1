// Package publish publishes stamped messages in the ways that a backend has:
// HTTP, batches over HTTP, NATS; and for servers without any of these, by a
// message on a client's connection.
package publish

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/stamp"
)

// Publisher publishes without waiting for answers. It is for the goroutine
// that polls its answers.
type Publisher interface {
	// Lanes is how many publishers it is to a receiver: each lane's messages
	// on a channel keep their order.
	Lanes() int
	// Ready says whether Publish may be called now.
	Ready() bool
	// Publish publishes a message on each channel; at is when that was to
	// happen.
	Publish(at int64, channels ...int) error
	// Poll takes the answers that have come, without waiting.
	Poll() error
	// FD is a descriptor that is readable when there are answers, -1 if there
	// is none.
	FD() int
	// Stats is what became of the publications.
	Stats() Stats
	// Published is the number of the last message of each lane on each channel.
	Published() fleet.Published
	// Reset begins the numbers anew. Nothing may be unanswered.
	Reset()
	Close() error
}

// Stats counts publications; one message on one channel is one.
type Stats struct {
	Published int64 `json:"published"`
	Answered  int64 `json:"answered"`
	Failed    int64 `json:"failed"`
	// FirstFailure is what the first refused publication was answered.
	FirstFailure string `json:"first_failure,omitempty"`
	// Latency is from sending a request to its answer, in nanoseconds.
	Latency *hdrhistogram.Histogram `json:"-"`
}

// Unanswered is how many publications are under way.
func (s *Stats) Unanswered() int64 { return s.Published - s.Answered - s.Failed }

// Message says what publications look like.
type Message struct {
	// Name gives a channel's name.
	Name func(channel int) string
	// Event is the event's name, "message" if empty.
	Event string
	// Bytes is the size of the data: a stamp at the least.
	Bytes int
}

// ledger numbers what each lane publishes on each channel.
type ledger struct {
	message Message
	now     func() int64
	last    fleet.Published
	stats   Stats
	padding []byte
}

func newLedger(lanes int, m Message, now func() int64) (ledger, error) {
	if m.Bytes < stamp.Size {
		return ledger{}, fmt.Errorf("messages of %d bytes are too small to be measured, want %d or more", m.Bytes, stamp.Size)
	}
	if lanes < 1 || lanes > stamp.LanesMax {
		return ledger{}, fmt.Errorf("%d publishers, want 1 to %d", lanes, stamp.LanesMax)
	}
	if m.Event == "" {
		m.Event = "message"
	}
	l := ledger{message: m, now: now, padding: make([]byte, m.Bytes-stamp.Size)}
	for i := range l.padding {
		l.padding[i] = 'x'
	}
	l.last = make(fleet.Published, lanes)
	l.Reset()
	return l, nil
}

// Lanes implements Publisher.
func (l *ledger) Lanes() int { return len(l.last) }

// Stats implements Publisher.
func (l *ledger) Stats() Stats { return l.stats }

// Published implements Publisher.
func (l *ledger) Published() fleet.Published { return l.last }

// Reset implements Publisher.
func (l *ledger) Reset() {
	for i := range l.last {
		l.last[i] = map[int]uint32{}
	}
	l.stats = Stats{Latency: hdrhistogram.New(1, 60e9, 3)}
}

// appendData appends the next message's data, which is free of characters
// that JSON would escape.
func (l *ledger) appendData(dst []byte, lane, channel int, at int64) []byte {
	seq := l.last[lane][channel] + 1
	l.last[lane][channel] = seq
	l.stats.Published++
	dst = stamp.Append(dst, stamp.Stamp{Lane: lane, Channel: channel, Seq: seq, At: at})
	return append(dst, l.padding...)
}

// answered takes the answer to n publications that were sent at a time.
func (l *ledger) answered(n int, sent int64, failure string) {
	_ = l.stats.Latency.RecordValue(min(max(l.now()-sent, 1), 60e9)) // within its range
	if failure == "" {
		l.stats.Answered += int64(n)
		return
	}
	if l.stats.Failed == 0 {
		l.stats.FirstFailure = failure
	}
	l.stats.Failed += int64(n)
}
