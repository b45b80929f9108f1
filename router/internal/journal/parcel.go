package journal

import (
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Ticket is told what became of a publication: once, from any goroutine. It
// must not block.
type Ticket interface {
	Settle(index int, r publisher.Receipt)
}

// Item is a publication on its way into the journal. Everything in it may be
// reused when it has been submitted.
type Item struct {
	Pub *message.Publication
	// MsgID, if set, names the publication for the stream, which then stores it
	// once however often it is submitted within the idempotency window.
	MsgID string
	// Durable publications are answered when the stream has them; others go to
	// the subscribers only, unless they have a MsgID.
	Durable bool
	// Deadline: not sent after it. Zero is never.
	Deadline time.Time
	Ticket   Ticket
	Index    int // handed to Ticket
}

// KeyID makes the MsgID of a publication with an idempotency key. The channel
// is part of it: one key given to several channels of a request is several
// publications.
func KeyID(app, channel, key string) string {
	sum := sha256.Sum256([]byte(app + "\x00" + channel + "\x00" + key))
	return "k:" + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// parcel is one message on its way: a batch, or one publication with a MsgID.
type parcel struct {
	batch    message.Batch
	msgID    string
	key      channel.Key // of a publication with a MsgID
	tickets  []ticketRef
	deadline time.Time // of the last publication; zero is never
	trace    string    // first sampled traceparent
}

type ticketRef struct {
	ticket Ticket
	index  int
}

func (p *parcel) add(it *Item) {
	p.batch.Add(it.Pub)
	p.tickets = append(p.tickets, ticketRef{it.Ticket, it.Index})
	if it.Deadline.IsZero() || (!p.deadline.IsZero() && it.Deadline.After(p.deadline)) || len(p.tickets) == 1 {
		p.deadline = it.Deadline
	}
	if p.trace == "" && it.Pub.Trace != "" && telemetry.Sampled(it.Pub.Trace) {
		p.trace = it.Pub.Trace
	}
}

// settle answers all publications: stored at seq, or why not.
func (p *parcel) settle(seq uint64, epoch string, duplicate bool, err error) {
	for i, t := range p.tickets {
		r := publisher.Receipt{Err: err}
		if err == nil && seq > 0 {
			r = publisher.Receipt{Position: message.At(seq, i), Epoch: epoch, Duplicate: duplicate}
		}
		t.ticket.Settle(t.index, r)
	}
}

func (p *parcel) tooLate(now time.Time) bool {
	return !p.deadline.IsZero() && now.After(p.deadline)
}
