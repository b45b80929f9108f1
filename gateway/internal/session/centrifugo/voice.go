package centrifugo

import (
	"sync"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
)

// voice is how a session speaks to its client.
type voice struct {
	dialect *codec.Dialect
	host    Host
	silent  bool // the connection is closed
}

// reply answers a command.
func (v *voice) reply(id uint32, r codec.Result) {
	v.say(func(dst []byte) []byte { return v.dialect.AppendReply(dst, &codec.Reply{ID: id, Result: r}) })
}

// refuse answers a command with the protocol's error for why. text says what
// is wrong and what would be right, "" leaves it to the protocol.
func (v *voice) refuse(id uint32, why dialect.Reason, text string) {
	v.refuseWith(id, why, errorOf(why, text))
}

func errorOf(why dialect.Reason, text string) *codec.Error {
	e := codec.ErrorOf(why)
	if text != "" {
		e.Message += ": " + text
	}
	return &e
}

func (v *voice) refuseWith(id uint32, why dialect.Reason, e *codec.Error) {
	v.host.Refused(why)
	v.say(func(dst []byte) []byte { return v.dialect.AppendReply(dst, &codec.Reply{ID: id, Error: e}) })
}

func (v *voice) push(channel string, p codec.Push) {
	v.say(func(dst []byte) []byte { return v.dialect.AppendPush(dst, channel, p) })
}

// missed tells what a client missed, by pushes.
func (v *voice) missed(channel string, publications []codec.Publication) {
	for i := range publications {
		v.push(channel, &publications[i])
	}
}

// buffers are for messages to single clients: a session keeps none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// bufferBytesMax is how large a buffer is kept.
const bufferBytesMax = 64 << 10

func (v *voice) say(appendTo func(dst []byte) []byte) {
	if v.silent {
		return
	}
	buf := buffers.Get().(*[]byte)
	*buf = appendTo((*buf)[:0])
	v.host.Send(*buf)
	if cap(*buf) <= bufferBytesMax {
		buffers.Put(buf)
	}
}
