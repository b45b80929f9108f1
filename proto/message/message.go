// Package message is the envelope of publications: one Publication, and the
// Batch of them that travels on a partition's log and live subjects.
//
// A batch is written once, by a writer, and read by every gateway and router
// of the cluster, so decoding allocates nothing: strings alias the buffer.
package message

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/carillon-rt/carillon/proto/wire"
)

// Kind says what a publication tells the subscribers of its channel.
type Kind uint8

// Kinds. Numbers are on the wire: append only.
const (
	Event             Kind = 1 // published by the application
	ClientEvent       Kind = 2 // published by a client; UserID is its id as JSON on presence channels
	MemberAdded       Kind = 3 // UserID is the id as JSON, Data the user info as JSON
	MemberRemoved     Kind = 4 // UserID is the id as JSON
	SubscriptionCount Kind = 5 // Version is the count
	UserOnline        Kind = 6 // on channel "#online-<id>"; UserID is the id
	UserOffline       Kind = 7
	// HistoryRemoved takes away what the journal has of the channel up to its
	// place: history and cached value. Nobody is told.
	HistoryRemoved Kind = 8
)

// Publication is one message on one channel.
//
// A publication that was read from a batch aliases the batch's buffer: clone
// what is kept for longer.
type Publication struct {
	Kind    Kind
	App     string
	Channel string
	// Event is the event name, "" for publishers that have none.
	Event string
	// Data is the publisher's payload, byte for byte.
	Data []byte
	// Exclude is the socket id that must not receive it, or "".
	Exclude string
	// UserID is the publishing or concerned user, see the kinds.
	UserID string
	// ID names the publication for the application, or "".
	ID string
	// Trace is a W3C traceparent, or "".
	Trace string
	// TimeMs is when it was accepted, Unix milliseconds.
	TimeMs uint64
	// Version orders the member events of a channel; the count of a
	// SubscriptionCount.
	Version uint64
	// IdempotencyKey is only set between a publisher and a router.
	IdempotencyKey string
	// Tags are pairs of key and value.
	Tags []Tag
	// Transient is delivered to who is there, and is neither history nor a
	// cached value, whatever the policy of its channel.
	Transient bool
	// Seq numbers the events of a presence owner: it rises within the chain of
	// a presence shard and a partition. 0 on everything else.
	Seq uint64
	// Prev is the Seq of the event before in that chain, 0 in the first one of
	// an owner. Counts only with Seq.
	Prev uint64
	// Info says who published it from a client, as JSON of the client's
	// dialect; empty on everything else.
	Info []byte
	// Left is the stamp of its batch: see AppendStamped. A reader sets it; it is
	// not part of the encoding.
	Left uint64
}

// Tag is one key and value that the publisher attached.
type Tag struct{ Key, Value string }

// presence bits of the optional fields.
const (
	hasExclude = 1 << iota
	hasUserID
	hasID
	hasTrace
	hasVersion
	hasIdempotencyKey
	hasTags
	hasSeq
	hasInfo
)

// isTransient stands apart from the fields: it has no bytes of its own.
const isTransient = 1 << 13

// Append appends p to dst: its length, then its fields.
func (p *Publication) Append(dst []byte) []byte {
	n := p.size()
	dst = wire.AppendUvarint(dst, uint64(n))
	dst = append(dst, byte(p.Kind))
	dst = wire.AppendUvarint(dst, p.bits())
	dst = wire.AppendUvarint(dst, p.TimeMs)
	dst = wire.AppendString(dst, p.App)
	dst = wire.AppendString(dst, p.Channel)
	dst = wire.AppendString(dst, p.Event)
	dst = wire.AppendString(dst, p.Data)
	for _, s := range [...]string{p.Exclude, p.UserID, p.ID, p.Trace, p.IdempotencyKey} {
		if s != "" {
			dst = wire.AppendString(dst, s)
		}
	}
	if p.Version != 0 {
		dst = wire.AppendUvarint(dst, p.Version)
	}
	if len(p.Tags) > 0 {
		dst = wire.AppendUvarint(dst, uint64(len(p.Tags)))
		for _, t := range p.Tags {
			dst = wire.AppendString(dst, t.Key)
			dst = wire.AppendString(dst, t.Value)
		}
	}
	if p.Seq != 0 {
		dst = wire.AppendUvarint(dst, p.Seq)
		dst = wire.AppendUvarint(dst, p.Prev)
	}
	if len(p.Info) > 0 {
		dst = wire.AppendString(dst, p.Info)
	}
	return dst
}

func (p *Publication) bits() uint64 {
	var b uint64
	set := func(is bool, bit uint64) {
		if is {
			b |= bit
		}
	}
	set(p.Exclude != "", hasExclude)
	set(p.UserID != "", hasUserID)
	set(p.ID != "", hasID)
	set(p.Trace != "", hasTrace)
	set(p.Version != 0, hasVersion)
	set(p.IdempotencyKey != "", hasIdempotencyKey)
	set(len(p.Tags) > 0, hasTags)
	set(p.Seq != 0, hasSeq)
	set(len(p.Info) > 0, hasInfo)
	set(p.Transient, isTransient)
	return b
}

func sizeUvarint(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func sizeString(n int) int { return sizeUvarint(uint64(n)) + n }

// size is the length of what follows the length prefix.
func (p *Publication) size() int {
	n := 1 + sizeUvarint(p.bits()) + sizeUvarint(p.TimeMs) +
		sizeString(len(p.App)) + sizeString(len(p.Channel)) + sizeString(len(p.Event)) + sizeString(len(p.Data))
	for _, s := range [...]string{p.Exclude, p.UserID, p.ID, p.Trace, p.IdempotencyKey} {
		if s != "" {
			n += sizeString(len(s))
		}
	}
	if p.Version != 0 {
		n += sizeUvarint(p.Version)
	}
	if len(p.Tags) > 0 {
		n += sizeUvarint(uint64(len(p.Tags)))
		for _, t := range p.Tags {
			n += sizeString(len(t.Key)) + sizeString(len(t.Value))
		}
	}
	if p.Seq != 0 {
		n += sizeUvarint(p.Seq) + sizeUvarint(p.Prev)
	}
	if len(p.Info) > 0 {
		n += sizeString(len(p.Info))
	}
	return n
}

// Size is the number of bytes that Append adds.
func (p *Publication) Size() int {
	n := p.size()
	return sizeUvarint(uint64(n)) + n
}

// read fills p from r; fields that newer writers add at the end are skipped.
func (p *Publication) read(r *wire.Reader) error {
	body := wire.NewReader(r.Bytes())
	if err := r.Err(); err != nil {
		return err
	}
	p.Kind = Kind(body.Byte())
	bits := body.Uvarint()
	p.Transient = bits&isTransient != 0
	p.TimeMs = body.Uvarint()
	p.App = body.String()
	p.Channel = body.String()
	p.Event = body.String()
	p.Data = body.Bytes()
	opt := func(bit uint64) string {
		if bits&bit == 0 {
			return ""
		}
		return body.String()
	}
	p.Exclude = opt(hasExclude)
	p.UserID = opt(hasUserID)
	p.ID = opt(hasID)
	p.Trace = opt(hasTrace)
	p.IdempotencyKey = opt(hasIdempotencyKey)
	p.Version = 0
	if bits&hasVersion != 0 {
		p.Version = body.Uvarint()
	}
	p.Tags = nil
	if bits&hasTags != 0 {
		n := body.Uvarint()
		if n > uint64(body.Len()) {
			return wire.ErrShort
		}
		p.Tags = make([]Tag, n)
		for i := range p.Tags {
			p.Tags[i] = Tag{Key: body.String(), Value: body.String()}
		}
	}
	p.Seq, p.Prev = 0, 0
	if bits&hasSeq != 0 {
		p.Seq, p.Prev = body.Uvarint(), body.Uvarint()
	}
	p.Info = nil
	if bits&hasInfo != 0 {
		p.Info = body.Bytes()
	}
	return body.Err()
}

// Parse reads one publication from the bytes that Append wrote. It aliases
// buf.
func Parse(buf []byte) (*Publication, error) {
	r := wire.NewReader(buf)
	p := &Publication{}
	if err := p.read(&r); err != nil {
		return nil, err
	}
	return p, nil
}

// The first byte of a batch.
const (
	version = 1
	stamped = 2 // the same after a stamp
)

// Limits of a batch: the index of a publication has 10 bits in a position.
const (
	BatchPublicationsMax = 1 << 10
	// BatchBytesMax is where larger batches gain nothing. A single larger
	// publication travels alone.
	BatchBytesMax = 200 << 10
	// BatchBytesLeast fits into the smallest message that a broker may be set
	// to (64 KiB), with room for headers.
	BatchBytesLeast = 60 << 10

	batchSlack = 4 << 10 // for headers
)

// BatchBytes is how large batches may grow with a broker whose messages have
// payloadMax bytes at most; 0 is a broker that is not known yet.
func BatchBytes(payloadMax int64) int {
	return int(min(max(payloadMax-batchSlack, BatchBytesLeast), BatchBytesMax))
}

// IdempotencyKeyMax is the length limit of an idempotency key in bytes.
const IdempotencyKeyMax = 128

// TagsMax is how many tags a publication may have.
const TagsMax = 64

// Errors of Batch.
var (
	ErrVersion = errors.New("message: batch of an unknown version")
	ErrFull    = fmt.Errorf("message: batch is full (%d publications)", BatchPublicationsMax)
)

// Batch builds the bytes of a batch.
type Batch struct {
	buf []byte
	n   int
}

// Reset empties the batch and keeps its buffer.
func (b *Batch) Reset() { b.buf, b.n = b.buf[:0], 0 }

// Len is the number of publications.
func (b *Batch) Len() int { return b.n }

// Bytes is the encoded batch; it is valid until the next Reset or Add.
func (b *Batch) Bytes() []byte { return b.buf }

// Fits says whether p can be added within the limits of a batch, of which
// bytesMax is one (see BatchBytes). An empty batch takes a publication of any
// size.
func (b *Batch) Fits(p *Publication, bytesMax int) bool {
	return b.n == 0 || (b.n < BatchPublicationsMax && len(b.buf)+p.Size() <= bytesMax)
}

// Add appends p and returns its index in the batch.
func (b *Batch) Add(p *Publication) int {
	if b.n == 0 {
		b.buf = append(b.buf[:0], version)
	}
	b.buf = p.Append(b.buf)
	b.n++
	return b.n - 1
}

// AppendStamped appends a batch that says when it left its router, in
// microseconds of the clock that routers share. Batches that are stored need
// none: they have positions.
func AppendStamped(dst []byte, left uint64, batch []byte) []byte {
	dst = binary.AppendUvarint(append(dst, stamped), left)
	return append(dst, batch[1:]...)
}

// Reader walks over the publications of a batch.
type Reader struct {
	r    wire.Reader
	err  error
	n    int
	left uint64
}

// NewReader reads the batch in buf, which must stay unchanged as long as
// anything read from it is in use.
func NewReader(buf []byte) Reader {
	r := wire.NewReader(buf)
	switch v := r.Byte(); {
	case r.Err() == nil && v == version:
		return Reader{r: r}
	case r.Err() == nil && v == stamped:
		left := r.Uvarint()
		return Reader{r: r, left: left, err: r.Err()}
	}
	return Reader{err: ErrVersion}
}

// Next reads the next publication into p. It returns false at the end and on
// a malformed batch; then Err tells which.
func (r *Reader) Next(p *Publication) bool {
	if r.err != nil || r.r.Len() == 0 {
		return false
	}
	if r.err = p.read(&r.r); r.err != nil {
		return false
	}
	p.Left = r.left
	r.n++
	return true
}

// Index is the index in the batch of what Next read last.
func (r *Reader) Index() int { return r.n - 1 }

// Rest is the number of bytes of the batch that have not been read: what Next
// reads next begins there, and Parse reads it again.
func (r *Reader) Rest() int { return r.r.Len() }

// Err is nil at a proper end.
func (r *Reader) Err() error { return r.err }

// Position is the place of a publication in its partition: stream sequence
// << 10 | index in the batch. It is the offset of every dialect: monotonic per
// channel, not dense, below 2^53. Zero is "before everything".
type Position uint64

// At gives the position of publication index of the batch with sequence seq.
func At(seq uint64, index int) Position { return Position(seq<<10 | uint64(index)) }

// AfterBatch is the highest position that a publication of the batch with
// sequence seq can have.
func AfterBatch(seq uint64) Position { return At(seq, BatchPublicationsMax-1) }

// Infinite is above every position.
const Infinite = Position(1<<64 - 1)

// Seq is the stream sequence of the position's batch.
func (p Position) Seq() uint64 { return uint64(p) >> 10 }

// Index is the index in that batch.
func (p Position) Index() int { return int(p & (BatchPublicationsMax - 1)) }
