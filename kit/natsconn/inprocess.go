package natsconn

import (
	"net"
	"time"

	"github.com/nats-io/nats.go"
)

// deadlineSlack is how much less than it asked for a write on a pipe may get.
const deadlineSlack = time.Second

// inProcess gives connections to a server in the same process whose write deadlines cost next to nothing. nats.go sets one before each
// write and clears it after; on the pipe that such a connection is, both make a timer.
type inProcess struct{ server nats.InProcessConnProvider }

// InProcessConn implements nats.InProcessConnProvider.
func (p inProcess) InProcessConn() (net.Conn, error) {
	nc, err := p.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &pipe{Conn: nc}, nil
}

// pipe keeps a write deadline until a later one is wanted. Every write is preceded by one, so that a deadline that was to be cleared
// harms none.
type pipe struct {
	net.Conn

	// owned by the writer, of which there is one at a time
	due time.Time
}

// SetWriteDeadline implements net.Conn.
func (p *pipe) SetWriteDeadline(t time.Time) error {
	if t.IsZero() || !p.due.Before(t.Add(-deadlineSlack)) {
		return nil
	}
	p.due = t
	return p.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn; nats.go bounds the handshake with it.
func (p *pipe) SetDeadline(t time.Time) error {
	p.due = t
	return p.Conn.SetDeadline(t)
}
