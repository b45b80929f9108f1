package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"syscall"
)

// Errors are those that end the server; a client that does wrong is dropped.

func (s *server) readable(fd int32) error {
	c := s.conns[fd]
	n, err := syscall.Read(int(fd), s.input)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		s.drop(fd)
		return nil
	}
	c.rest = append(c.rest, s.input[:n]...)
	if c.place == 0 {
		if err := s.upgrade(fd, c); err != nil {
			return err
		}
	}
	for c.place > 0 {
		f, rest, complete, err := take(c.rest)
		if err != nil {
			s.drop(fd)
			return nil
		}
		if !complete {
			break
		}
		if err := s.message(fd, f); err != nil {
			return err
		}
		c.rest = rest
	}
	if len(c.rest) > restMax {
		s.drop(fd)
	}
	if len(c.rest) == 0 {
		c.rest = nil
	}
	return nil
}

// drop leaves c.place at 0, which ends the reading.
func (s *server) drop(fd int32) {
	c := s.conns[fd]
	if c == nil {
		return
	}
	if c.place > 0 {
		last := s.open[len(s.open)-1]
		s.open[c.place-1] = last
		s.conns[last].place = c.place
		s.open = s.open[:len(s.open)-1]
	}
	c.place, c.rest = 0, nil
	delete(s.conns, fd)
	delete(s.queues, fd)
	_ = syscall.Close(int(fd)) // gone either way
}

const (
	established = `{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}`
	succeeded   = `{"event":"pusher_internal:subscription_succeeded","channel":"any","data":"{}"}`
	refusal     = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nwant the header Sec-WebSocket-Key with 24 characters\n"
	keySize     = 24 // base64 of 16 bytes
)

// upgrade answers a request when all of it is there. Clients all write the
// name of the header like this.
func (s *server) upgrade(fd int32, c *conn) error {
	head, rest, complete := bytes.Cut(c.rest, []byte("\r\n\r\n"))
	if !complete {
		return nil
	}
	_, key, _ := bytes.Cut(head, []byte("\r\nSec-WebSocket-Key: "))
	key, _, _ = bytes.Cut(key, []byte("\r\n"))
	if len(key) != keySize {
		err := s.deliver(fd, []byte(refusal))
		s.drop(fd)
		return err
	}
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	c.rest = bytes.Clone(rest)
	s.open = append(s.open, fd)
	c.place = len(s.open)
	return s.deliver(fd, appendFrame(answer, opText, []byte(established)))
}

// message takes a publication for the end of the turn, and answers anything
// else.
func (s *server) message(fd int32, f frame) error {
	switch f.op {
	case opText:
		if len(f.payload) > 0 && f.payload[0] == 'P' {
			s.turn = appendFrame(s.turn, opText, f.payload[1:])
			return nil
		}
		return s.deliver(fd, appendFrame(nil, opText, []byte(succeeded)))
	case opPing:
		return s.deliver(fd, appendFrame(nil, opPong, f.payload))
	case opPong:
		return nil
	case opClose:
		err := s.deliver(fd, appendFrame(nil, opClose, f.payload))
		s.drop(fd)
		return err
	default: // continuations and binaries
		s.drop(fd)
		return nil
	}
}
