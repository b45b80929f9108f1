package publisher

import (
	"errors"
	"fmt"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/wire"
)

// A reply is: version, epoch, number of receipts, then per receipt its flags
// and the fields that these name.
const replyVersion = 1

const (
	hasPosition = 1 << iota
	isDuplicate
	hasError
)

// ErrReply means that a router's reply can't be read.
var ErrReply = errors.New("publisher: malformed reply")

// AppendReply appends the reply to a request of len(receipts) publications.
// The receipts that have a position share one epoch. An error that is no
// *Error travels as Unavailable.
func AppendReply(dst []byte, epoch string, receipts []Receipt) []byte {
	dst = append(dst, replyVersion)
	dst = wire.AppendString(dst, epoch)
	dst = wire.AppendUvarint(dst, uint64(len(receipts)))
	for i := range receipts {
		dst = appendReceipt(dst, &receipts[i])
	}
	return dst
}

func appendReceipt(dst []byte, r *Receipt) []byte {
	var flags byte
	if r.Position != 0 {
		flags |= hasPosition
	}
	if r.Duplicate {
		flags |= isDuplicate
	}
	if r.Err != nil {
		flags |= hasError
	}
	dst = append(dst, flags)
	if r.Position != 0 {
		dst = wire.AppendUvarint(dst, uint64(r.Position))
	}
	if r.Err != nil {
		e := asError(r.Err)
		dst = append(dst, byte(e.Code))
		dst = wire.AppendString(dst, e.Message)
	}
	return dst
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Unavailable, err.Error()}
}

// ParseReply appends the receipts of a reply to dst. What it returns shares
// no memory with buf.
func ParseReply(dst []Receipt, buf []byte) ([]Receipt, error) {
	r := wire.NewReader(buf)
	if v := r.Byte(); v != replyVersion {
		return dst, fmt.Errorf("%w: version %d", ErrReply, v)
	}
	epoch := string(r.Bytes())
	n := r.Uvarint()
	if r.Err() != nil || n > uint64(r.Len()) || n > message.BatchPublicationsMax {
		return dst, fmt.Errorf("%w: %d receipts in %d bytes", ErrReply, n, len(buf))
	}
	for range n {
		dst = append(dst, readReceipt(&r, epoch))
	}
	if r.Err() != nil {
		return dst, fmt.Errorf("%w: %w", ErrReply, r.Err())
	}
	return dst, nil
}

func readReceipt(r *wire.Reader, epoch string) Receipt {
	var out Receipt
	flags := r.Byte()
	if flags&hasPosition != 0 {
		out.Position = message.Position(r.Uvarint())
		out.Epoch = epoch
	}
	out.Duplicate = flags&isDuplicate != 0
	if flags&hasError == 0 {
		return out
	}
	code := Code(r.Byte())
	text := string(r.Bytes())
	switch {
	case code == Busy && text == ErrBusy.Error():
		out.Err = ErrBusy
	case code == Unavailable && text == ErrUnavailable.Error():
		out.Err = ErrUnavailable
	default:
		out.Err = &Error{code, text}
	}
	return out
}
