// Package exchange is the contract between gateways about clients that come
// by HTTP exchanges instead of a WebSocket: each exchange may reach any
// gateway, one of which has the client's session. The others ask it.
package exchange

import (
	"errors"
	"time"

	"github.com/carillon-rt/carillon/proto/wire"
)

// Op is what is asked for.
type Op uint8

// Operations. Their values travel.
const (
	// Find asks whether the session is there: 200 or 404.
	Find Op = iota + 1
	// Send hands messages of the client to the session: Body is that of the
	// exchange. Answered when the session has taken them: 204, 400, 404.
	Send
	// Poll takes what is queued for the client, or waits for it: 200 with a
	// Body in the session's framing, 204 when nothing came, 404, or 409 when
	// another exchange polls.
	Poll
	// Leave says that the client of an exchange that polled is gone.
	Leave
)

// Request asks the gateway that has a session. Subjects:
// subject.GatewaySession of the node for sessions that their gateway named,
// subject.NamedSession for those that their client named.
type Request struct {
	Op Op
	// Name is what the client calls its session, ID what its gateway calls it;
	// one of them is "".
	Name, ID string
	// Exchange tells the exchanges that poll a session apart. Begin: it polls
	// for the first time, and takes the place of those before it.
	Exchange uint64
	Begin    bool
	// Wait is how long a Poll may wait, in whole milliseconds.
	Wait time.Duration
	// Body of a Send, at most the gateways' limit of a message.
	Body []byte
}

// Reply answers a Request.
type Reply struct {
	// Status is that of HTTP.
	Status int
	Body   []byte
}

// version begins every message, so that a later one is noticed.
const version = 1

const flagBegin = 1

// ErrElsewhere means that another gateway has a session.
var ErrElsewhere = errors.New("another gateway has the session")

// ErrVersion is a message of another version of Carillon.
var ErrVersion = errors.New("exchange: message of an unknown version")

// Append appends the request as it travels.
func (r *Request) Append(dst []byte) []byte {
	var flags byte
	if r.Begin {
		flags |= flagBegin
	}
	dst = append(dst, version, byte(r.Op), flags)
	dst = wire.AppendString(dst, r.Name)
	dst = wire.AppendString(dst, r.ID)
	dst = wire.AppendUvarint(dst, r.Exchange)
	dst = wire.AppendUvarint(dst, uint64(r.Wait/time.Millisecond))
	return wire.AppendString(dst, r.Body)
}

// waitMax bounds what a Request can ask a gateway to wait.
const waitMax = time.Hour

// ParseRequest reads a request; what it returns aliases b.
func ParseRequest(b []byte) (Request, error) {
	r := wire.NewReader(b)
	if r.Byte() != version {
		return Request{}, ErrVersion
	}
	req := Request{Op: Op(r.Byte())}
	req.Begin = r.Byte()&flagBegin != 0
	req.Name, req.ID, req.Exchange = r.String(), r.String(), r.Uvarint()
	req.Wait = time.Duration(min(r.Uvarint(), uint64(waitMax/time.Millisecond))) * time.Millisecond
	req.Body = r.Bytes()
	return req, r.Err()
}

// Append appends the reply as it travels.
func (r *Reply) Append(dst []byte) []byte {
	dst = append(dst, version)
	dst = wire.AppendUvarint(dst, uint64(r.Status))
	return wire.AppendString(dst, r.Body)
}

// ParseReply reads a reply; its Body aliases b.
func ParseReply(b []byte) (Reply, error) {
	r := wire.NewReader(b)
	if r.Byte() != version {
		return Reply{}, ErrVersion
	}
	status := r.Uvarint()
	if status < 100 || status > 599 {
		return Reply{}, errors.New("exchange: reply without a status of HTTP")
	}
	return Reply{Status: int(status), Body: r.Bytes()}, r.Err()
}
