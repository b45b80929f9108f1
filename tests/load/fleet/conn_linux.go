package fleet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/carillon-rt/carillon/tests/load/stamp"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// state is how far a connection has come.
type state uint8

const (
	stateNone       state = iota // not connected
	stateConnecting              // the kernel is at it
	stateAsked                   // the request was sent
	stateGreeting                // upgraded; waits for the greeting
	stateJoining                 // waits for its subscriptions
	stateLive
	stateDeaf // live, and does not read
)

const closeAbnormal = 1006 // no close frame came (RFC 6455, section 7.4.1)

// conn is one connection.
type conn struct {
	fd       int32
	state    state
	attempts uint8
	churning bool   // its subscription is being changed
	wants    uint16 // subscriptions to be confirmed
	began    int64
	rest     []byte // a frame, or head, that is incomplete
	socketID string
	streams  []tally.Stream // by subscription and lane
	place    []byte         // position in its channel, with Plan.Resume
}

// connect begins connection i.
func (f *Fleet) connect(i int) {
	c := &f.conns[i]
	f.counts.Begun++
	f.underway++
	c.began = f.clock.Now()
	server := f.plan.server(i, c.attempts)
	fd, err := f.dialer.dial(f.plan.First+i, server)
	if err != nil {
		f.refuse(i, err)
		return
	}
	c.fd, c.state = int32(fd), stateAsked
	interest := uint32(syscall.EPOLLIN | syscall.EPOLLRDHUP)
	// On loopback the connection is there already, and a system call is saved.
	err = send(c, f.requests[server])
	if errors.Is(err, syscall.EAGAIN) {
		c.state, interest, err = stateConnecting, syscall.EPOLLOUT, nil
	}
	if err == nil {
		err = f.poller.control(syscall.EPOLL_CTL_ADD, fd, i, interest)
	}
	if err != nil {
		f.refuse(i, err)
	}
}

// server is which server connection i goes to with an attempt.
func (p *Plan) server(i int, attempts uint8) int {
	n := int(attempts)
	if !p.Failover {
		n += i
	}
	return n % len(p.Addrs)
}

// refuse gives up a connection that was not completed.
func (f *Fleet) refuse(i int, err error) {
	f.underway--
	f.counts.Refused++
	f.errs.add(fmt.Errorf("connection %d: %w", f.plan.First+i, err))
	f.drop(i)
}

// lose takes out a connection that the server has closed.
func (f *Fleet) lose(i, code int, err error) {
	c := &f.conns[i]
	f.closes[code]++
	if c.state < stateLive {
		f.refuse(i, err)
		return
	}
	f.live--
	f.counts.Lost++
	f.errs.add(fmt.Errorf("connection %d: %w", f.plan.First+i, err))
	f.drop(i)
}

// drop closes a connection, and has it made anew if that is wanted.
func (f *Fleet) drop(i int) {
	c := &f.conns[i]
	if c.fd >= 0 {
		_ = hangUp(int(c.fd)) // gone either way
	}
	gone := *c
	*c = conn{fd: -1, attempts: gone.attempts + 1}
	if f.plan.Resume {
		c.place, c.streams = gone.place, gone.streams
	}
	if f.plan.Again {
		f.again = append(f.again, int32(i))
	}
}

// reconnect makes lost connections anew, as many at once as the plan allows.
func (f *Fleet) reconnect() {
	for len(f.again) > 0 && f.underway < f.plan.AtOnce {
		i := int(f.again[0])
		f.again = f.again[1:]
		f.connect(i)
	}
}

// event takes what epoll says of connection i.
func (f *Fleet) event(i int, events uint32) error {
	c := &f.conns[i]
	switch c.state {
	case stateNone:
		return nil
	case stateConnecting:
		c.state = stateAsked
		if err := send(c, f.requests[f.plan.server(i, c.attempts)]); err != nil {
			f.refuse(i, err)
			return nil
		}
		return f.poller.control(syscall.EPOLL_CTL_MOD, int(c.fd), i, syscall.EPOLLIN|syscall.EPOLLRDHUP)
	case stateDeaf:
		if events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 {
			return nil
		}
	}
	n, errno := recv(c.fd, f.input)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		f.lose(i, closeAbnormal, errno)
	case n == 0:
		f.lose(i, closeAbnormal, errors.New("the server closed the connection"))
	default:
		f.take(i, f.input[:n])
	}
	return nil
}

// take goes on with the bytes that have come for connection i.
func (f *Fleet) take(i int, b []byte) {
	c := &f.conns[i]
	if len(c.rest) > 0 {
		b = append(c.rest, b...)
		c.rest = nil
	}
	if c.state == stateAsked {
		size, err := answered(unsafe.String(unsafe.SliceData(b), len(b)))
		if err != nil {
			f.refuse(i, err)
			return
		}
		if size == 0 {
			c.rest = bytes.Clone(b)
			return
		}
		b = b[size:]
		f.upgraded(i)
	}
	f.measure.tally.Reads++
	now := int64(0)
	for len(b) > 0 && c.fd >= 0 {
		op, payload, size := cutFrame(b)
		if size == 0 {
			c.rest = bytes.Clone(b)
			return
		}
		b = b[size:]
		if f.packer == nil || op > opBinary {
			now = f.one(i, op, payload, now)
			continue
		}
		for more := payload; c.fd >= 0; {
			payload, more = f.packer.Cut(more)
			now = f.one(i, op, payload, now)
			if len(more) == 0 {
				break
			}
		}
	}
}

// one takes one message that came at now, 0 for not known yet, and gives the
// time back.
func (f *Fleet) one(i int, op byte, payload []byte, now int64) int64 {
	s, stamped := stamp.Find(payload)
	if !stamped || op > opBinary {
		f.message(i, op, payload)
		return now
	}
	if now == 0 {
		now = f.clock.Now()
	}
	f.deliver(i, &s, now)
	if f.places.resumer != nil {
		c := &f.conns[i]
		c.place = append(c.place[:0], f.places.resumer.Place(payload).Position...)
	}
	return now
}

// deliver takes a stamped message.
func (f *Fleet) deliver(i int, s *stamp.Stamp, now int64) {
	c := &f.conns[i]
	if c.state == stateDeaf {
		return
	}
	f.counts.Delivered++
	f.measure.take(c, f.plan.ordinal(f.plan.First+i, s.Channel), s, now)
}

// message takes what is no measured message.
func (f *Fleet) message(i int, op byte, payload []byte) {
	c := &f.conns[i]
	switch op {
	case opPing:
		f.reply(i, appendFrame(f.output[:0], opPong, payload))
		return
	case opClose:
		code := closeAbnormal
		if len(payload) >= 2 {
			code = int(binary.BigEndian.Uint16(payload))
			payload = payload[2:]
		}
		f.lose(i, code, fmt.Errorf("the server closed with %d %q", code, payload))
		return
	}
	switch m := f.dialect.Receive(payload); m.Kind {
	case Greeting:
		c.socketID = string(m.SocketID)
		if c.state == stateGreeting {
			f.subscribe(i)
		}
	case Subscribed:
		if f.places.resumer != nil {
			f.places.placed(c, f.places.resumer.Place(payload), &f.counts)
		}
		f.subscribed(i)
	case Refused:
		err := fmt.Errorf("the server says %.300q", m.Text)
		if c.state < stateLive {
			f.refuse(i, err)
			return
		}
		f.counts.Refused++
		f.errs.add(err)
	case Ping:
		f.reply(i, m.Reply)
	}
}

// upgraded: the WebSocket is there.
func (f *Fleet) upgraded(i int) {
	c := &f.conns[i]
	c.state = stateGreeting
	if hello := f.dialect.AppendHello(f.output[:0], f.plan.First+i); len(hello) > 0 {
		f.reply(i, hello)
	}
	if !f.dialect.Greeted() {
		c.wants = 0
		f.joined(i)
	}
}

// subscribe asks for all of a connection's channels at once.
func (f *Fleet) subscribe(i int) {
	c := &f.conns[i]
	out := f.output[:0]
	number := f.plan.First + i
	for k := range f.slots {
		name := f.plan.Name(f.plan.channel(number, k))
		if f.places.resumer != nil {
			out = f.places.resumer.AppendResume(out, number, c.socketID, name, string(c.place), f.places.epochAt(c))
			continue
		}
		out = f.dialect.AppendSubscribe(out, number, c.socketID, name)
	}
	f.output = out[:0]
	c.state, c.wants = stateJoining, uint16(f.slots)
	if f.slots == 0 {
		f.joined(i)
		return
	}
	f.reply(i, out)
}

// epochAt is the epoch of a connection's place, "" if it has none.
func (p *places) epochAt(c *conn) string {
	if len(c.place) == 0 {
		return ""
	}
	return p.epoch
}

// placed takes the answer to a subscription that keeps its place. What was
// missed follows, and each of it has its own position.
func (p *places) placed(c *conn, at Place, counts *Counts) {
	switch {
	case len(c.place) == 0:
		c.place = append(c.place, at.Position...)
	case at.Recovered:
		counts.Recovered++
	default:
		counts.Unrecovered++
		c.place = append(c.place[:0], at.Position...)
	}
	if p.epoch != string(at.Epoch) {
		p.epoch = string(at.Epoch)
	}
}

func (f *Fleet) subscribed(i int) {
	c := &f.conns[i]
	switch c.state {
	case stateJoining:
		if c.wants--; c.wants == 0 {
			f.joined(i)
		}
	case stateLive:
		c.churning = false
		f.counts.Subscribed++
	}
}

// joined: the connection has all that it wanted.
func (f *Fleet) joined(i int) {
	c := &f.conns[i]
	c.state = stateLive
	f.settled = f.clock.Now()
	_ = f.joins.RecordValue(min(max(f.settled-c.began, 1), latencyMax.Nanoseconds())) // within its range
	f.counts.Joined++
	f.underway--
	f.live++
}

// reply sends frames; a server that does not take them is not measured.
func (f *Fleet) reply(i int, frames []byte) {
	if err := send(&f.conns[i], frames); err != nil {
		f.lose(i, closeAbnormal, fmt.Errorf("send: %w", err))
	}
}
