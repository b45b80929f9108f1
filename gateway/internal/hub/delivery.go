// Package hub knows who wants what: per loop, the table of channels and their
// subscribers; per node, the interest in channels, which decides what is
// encoded and for which loops. It knows no sockets and no NATS; the Interest
// has the node's only lock on the path of a publication.
package hub

import (
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Frame is the immutable bytes of one or more publications in one encoding.
type Frame = loop.Frame

// Delivery is one publication on its way to the subscribers of this node. It
// is immutable and shared by all loops.
type Delivery struct {
	Key      channel.Key
	Kind     message.Kind
	Position message.Position // 0 on channels that are not durable
	Version  uint64           // of a member event: its number among those of the partition here
	// Exclude is the connection that must not get it, if Excludes.
	Exclude  loop.Handle
	Excludes bool
	// Tags are those of the publication; of channels with filters, else nil.
	Tags []message.Tag
	// Frames is indexed by encoding, as far as the encodings go that are present;
	// nil where the encoding has no words for this kind, or no subscriber.
	Frames []*Frame
}

// Frame is the delivery in an encoding, nil where there is none.
func (d *Delivery) Frame(enc uint8) *Frame {
	if int(enc) >= len(d.Frames) {
		return nil
	}
	return d.Frames[enc]
}

// parcel is a Delivery with room for what it points to: most are in one
// encoding of few, and cost one allocation instead of three.
type parcel struct {
	Delivery
	frames [16]*Frame
	frame  Frame
}

func newParcel(encodings int) *parcel {
	p := &parcel{}
	if encodings > len(p.frames) {
		p.Frames = make([]*Frame, encodings)
	} else {
		p.Frames = p.frames[:encodings]
	}
	return p
}

func (p *parcel) setFrame(encoding int, bytes []byte) {
	f := &p.frame
	if f.Bytes != nil {
		f = &Frame{}
	}
	f.Bytes = bytes
	p.Frames[encoding] = f
}

// Floor is what a subscription has already been told when it begins: member
// events up to a version, publications up to a position.
type Floor struct {
	Version  uint64
	Position message.Position
}

// Passes says whether d is news above the floor.
func (f Floor) Passes(d *Delivery) bool {
	if isMember(d) {
		return d.Version > f.Version
	}
	return d.Position == 0 || d.Position > f.Position
}

// IsPublication says whether the delivery is of something published, as
// opposed to what presence tells.
func (d *Delivery) IsPublication() bool { return isPublication(d.Kind) }

func isMember(d *Delivery) bool {
	return d.Kind == message.MemberAdded || d.Kind == message.MemberRemoved
}
