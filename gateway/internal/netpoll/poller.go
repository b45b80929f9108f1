// Package netpoll is what an event loop waits on and does I/O with. A Poller
// reports which connections are ready; descriptors (Linux, epoll) and pipes
// (goroutine-driven net.Conns, on other systems and for TLS) can be mixed on
// one Poller. It owns system calls; it must not know HTTP, WebSocket or what
// the bytes mean.
package netpoll

import (
	"errors"
	"time"
)

// Event says that a connection is ready.
type Event struct {
	// Slot and Gen are what the connection was registered with; a connection
	// may be gone when its event is read, and Gen tells. Slots below -1 are
	// free for descriptors that are no connections; -1 is the poller's own.
	Slot int32
	Gen  uint32
	// Readable includes end of stream and errors: reading tells which.
	Readable bool
	Writable bool
}

// Interest is what a descriptor is watched for.
type Interest uint8

// Interests. A descriptor is always watched for errors while it is watched.
const (
	None Interest = iota
	Read
	ReadWrite
	// Incoming is for listening sockets, which several pollers may watch: a
	// connection is not reported to all of them. It can only begin and end.
	Incoming
)

// ErrAgain means that an operation would have had to wait.
var ErrAgain = errors.New("operation would block")

// ErrUnsupported means that this system has no descriptors to watch: use
// pipes.
var ErrUnsupported = errors.New("descriptors can't be watched on this system")

// Poller waits for connections to be ready. Watch and Wait belong to one
// goroutine; Notify and Wake may be called from anywhere.
type Poller interface {
	// Watch changes what a descriptor is watched for, level-triggered; None
	// forgets it. from is its interest until now.
	Watch(fd int, slot int32, gen uint32, from, to Interest) error
	// Wait fills events with what is ready and returns their number. It waits
	// at most timeout, forever if negative, and not at all if 0; it may return
	// early without any event.
	Wait(events []Event, timeout time.Duration) (int, error)
	// Notify reports an event of a pipe and wakes the poller.
	Notify(ev Event)
	// Wake makes a Wait under way, or the next one, return at once.
	Wake()
	// Close releases the poller. No other method may be called after it,
	// except Notify and Wake, which then do nothing.
	Close() error
}
