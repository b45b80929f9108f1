package null

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// flush sends the turn's frames to everybody.
func (s *server) flush() error {
	if len(s.turn) == 0 {
		return nil
	}
	for i := 0; i < len(s.open); {
		fd := s.open[i]
		if err := s.deliver(fd, s.turn); err != nil {
			return err
		}
		if i < len(s.open) && s.open[i] == fd {
			i++ // otherwise the last one is here now
		}
	}
	s.turn = s.turn[:0]
	return nil
}

// pings sends those that are due, some of them every pingTurn. It gives for how
// many milliseconds epoll_wait may wait then, -1 for as long as it likes.
func (s *server) pings() (int, error) {
	if s.ping == 0 {
		return -1, nil
	}
	now := time.Now()
	since := now.Sub(s.pinged)
	if since < pingTurn {
		return int((pingTurn-since)/time.Millisecond) + 1, nil
	}
	s.pinged = now
	s.due += since * time.Duration(len(s.open))
	frame := appendFrame(nil, opPing, nil)
	for n := s.due / s.ping; n > 0 && len(s.open) > 0; n-- {
		if s.pingNext >= len(s.open) {
			s.pingNext = 0
		}
		fd := s.open[s.pingNext]
		if err := s.deliver(fd, frame); err != nil {
			return 0, err
		}
		if s.pingNext < len(s.open) && s.open[s.pingNext] == fd {
			s.pingNext++ // otherwise the last one is here now
		}
	}
	s.due %= s.ping
	return int(pingTurn / time.Millisecond), nil
}

// deliver sends b, or keeps it for a slow reader, who is dropped when that is
// too much. A client that has closed is dropped when that is read.
func (s *server) deliver(fd int32, b []byte) error {
	took := 0
	if s.slow == 0 || s.queues[fd] == nil {
		var errno syscall.Errno
		took, errno = send(fd, b)
		if took == len(b) || errno == syscall.EPIPE || errno == syscall.ECONNRESET {
			return nil
		}
		if errno != 0 && errno != syscall.EAGAIN {
			return fmt.Errorf("send: %w", errno)
		}
		if s.slow == 0 {
			return fmt.Errorf("send: took %d of %d bytes: nothing can be measured with clients that do not read", took, len(b))
		}
	}
	return s.later(fd, b[took:])
}

// send is the system call that is measured. It sends 0 bytes when it fails.
func send(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// later keeps what the socket did not take.
func (s *server) later(fd int32, b []byte) error {
	queue := s.queues[fd]
	if len(queue)+len(b) > s.slow {
		// What was not read is thrown away by the system too.
		err := syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		s.drop(fd)
		return err
	}
	s.queues[fd] = append(queue, b...)
	if queue != nil {
		return nil
	}
	return s.watch(syscall.EPOLL_CTL_MOD, int(fd), syscall.EPOLLIN|syscall.EPOLLOUT)
}

// writable sends what was kept, or forgets it when the client has gone.
func (s *server) writable(fd int32) error {
	queue := s.queues[fd]
	took, errno := send(fd, queue)
	if errno == syscall.EAGAIN {
		return nil
	}
	if errno == 0 && took < len(queue) {
		s.queues[fd] = queue[took:]
		return nil
	}
	delete(s.queues, fd)
	return s.watch(syscall.EPOLL_CTL_MOD, int(fd), syscall.EPOLLIN)
}
