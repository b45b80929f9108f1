package netpoll

import (
	"net"
	"sync"
	"time"
)

// pipeReadBytes is the buffer of a pipe's reading goroutine.
const pipeReadBytes = 4 << 10

// pipeCloseGrace is how long a closed pipe may take to write what it has.
const pipeCloseGrace = 2 * time.Second

// Pipe makes a net.Conn, such as one with TLS, behave like a non-blocking
// descriptor: one goroutine reads, one writes while there is something to
// write, and both report to the poller. Its exported methods belong to the
// loop.
type Pipe struct {
	// immutable after Start
	conn   net.Conn
	poller Poller
	group  *sync.WaitGroup
	outMax int
	slot   int32
	gen    uint32

	mu sync.Mutex
	// guarded by mu
	turn    sync.Cond // the reader may go on
	in      []byte    // what was read and not taken yet
	inErr   error
	parked  bool // the reader waits for Resume
	left    bool // the reader must end: closed or detached
	out     []byte
	outErr  error
	writing bool // the writer runs
	blocked bool // the loop waits for room
	shut    bool // CloseWrite when out is empty
	closed  bool
	given   bool // detached: the connection is somebody else's
}

// NewPipe wraps conn. At most 2 x outMax bytes are buffered for writing; group
// counts the pipe's goroutines.
func NewPipe(conn net.Conn, poller Poller, outMax int, group *sync.WaitGroup) *Pipe {
	p := &Pipe{conn: conn, poller: poller, group: group, outMax: outMax}
	p.turn.L = &p.mu
	return p
}

// Start begins to read and to report events with this slot and generation.
func (p *Pipe) Start(slot int32, gen uint32) {
	p.slot, p.gen = slot, gen
	p.group.Go(p.read)
}

// Recv takes what was read, or returns ErrAgain, or the error that ended the
// stream. The pipe reads on only after Resume.
func (p *Pipe) Recv(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.in) > 0 {
		n := copy(b, p.in)
		p.in = p.in[n:]
		return n, nil
	}
	if p.inErr != nil {
		return 0, p.inErr
	}
	return 0, ErrAgain
}

// Resume lets the pipe read on, or reports again what was not taken.
func (p *Pipe) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.parked || p.closed {
		return
	}
	if len(p.in) > 0 || p.inErr != nil {
		p.poller.Notify(Event{Slot: p.slot, Gen: p.gen, Readable: true})
		return
	}
	p.parked = false
	p.turn.Signal()
}

// Send buffers what there is room for, or returns ErrAgain or the error of an
// earlier write. After less than all was taken, a Writable event tells when
// there is room.
func (p *Pipe) Send(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.shut {
		return 0, net.ErrClosed
	}
	if p.outErr != nil {
		return 0, p.outErr
	}
	n := min(p.outMax-len(p.out), len(b))
	p.blocked = n < len(b)
	if n <= 0 && len(b) > 0 {
		return 0, ErrAgain
	}
	p.out = append(p.out, b[:n]...)
	p.startWriter()
	return n, nil
}

// CloseWrite ends the sending side after what was sent.
func (p *Pipe) CloseWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.shut && !p.closed {
		p.shut = true
		p.startWriter()
	}
}

// Close closes the connection after what was sent, within a short grace. It
// does not wait.
func (p *Pipe) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed, p.left = true, true
	p.turn.Signal()
	// A deadline does not block, and ends a write that hangs.
	_ = p.conn.SetDeadline(time.Now().Add(pipeCloseGrace))
	p.startWriter()
}

// Detach ends the pipe and returns its connection. It may only be called
// between a Recv and the Resume after it. What was sent goes first: writes to
// the connection wait for it.
func (p *Pipe) Detach() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.left, p.given = true, true, true
	p.turn.Broadcast()
	if p.writing {
		return &queued{Conn: p.conn, pipe: p}
	}
	return p.conn
}

// queued is a detached connection on which the pipe may still write.
type queued struct {
	net.Conn
	pipe *Pipe
}

// Write implements net.Conn.
func (q *queued) Write(b []byte) (int, error) {
	if err := q.pipe.written(); err != nil {
		return 0, err
	}
	return q.Conn.Write(b)
}

// CloseWrite ends the sending side where the connection can do that.
func (q *queued) CloseWrite() error {
	c, ok := q.Conn.(interface{ CloseWrite() error })
	if err := q.pipe.written(); err != nil || !ok {
		return err
	}
	return c.CloseWrite()
}

// written waits until the writer has ended.
func (p *Pipe) written() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.writing {
		p.turn.Wait()
	}
	return p.outErr
}

func (p *Pipe) read() {
	buf := make([]byte, pipeReadBytes)
	for {
		n, err := p.conn.Read(buf)
		if !p.offer(buf[:n], err) {
			return
		}
	}
}

// offer hands what was read to the loop, waits until it was taken, and
// reports whether to read on.
func (p *Pipe) offer(b []byte, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return false
	}
	p.in, p.inErr, p.parked = b, err, true
	p.poller.Notify(Event{Slot: p.slot, Gen: p.gen, Readable: true})
	for p.parked && !p.left {
		p.turn.Wait()
	}
	return !p.left && err == nil
}

// startWriter starts the writer unless it runs. p.mu is held.
func (p *Pipe) startWriter() {
	if !p.writing {
		p.writing = true
		p.group.Go(p.write)
	}
}

// write writes until there is nothing left, then does what was asked for
// after that.
func (p *Pipe) write() {
	for {
		chunk, end := p.nextChunk()
		if end != nil {
			end()
			return
		}
		if _, err := p.conn.Write(chunk); err != nil {
			p.mu.Lock()
			p.outErr, p.out = err, nil
			p.mu.Unlock()
		}
	}
}

// nextChunk takes what is to be written, or returns what to do at the end.
func (p *Pipe) nextChunk() (chunk []byte, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocked && !p.closed {
		p.blocked = false
		p.poller.Notify(Event{Slot: p.slot, Gen: p.gen, Writable: true})
	}
	if len(p.out) > 0 {
		chunk, p.out = p.out, nil
		return chunk, nil
	}
	p.writing = false
	switch {
	case p.given:
		p.turn.Broadcast()
	case p.closed:
		return nil, func() { _ = p.conn.Close() }
	case p.shut:
		return nil, p.closeWrite
	}
	return nil, func() {}
}

// closeWrite ends the sending side where the connection can do that.
func (p *Pipe) closeWrite() {
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
