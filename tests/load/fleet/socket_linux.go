package fleet

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

// dialer makes connections to the servers of a plan.
type dialer struct {
	plan    Plan
	servers []syscall.SockaddrInet4
}

// dial returns a socket that is connecting to a server for the connection of a
// number.
func (d *dialer) dial(number, server int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if len(d.plan.From) > 0 {
		const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: the port is chosen when the other end is known
		from := &syscall.SockaddrInet4{Addr: d.plan.From[number%len(d.plan.From)].As4()}
		err = errors.Join(syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1), syscall.Bind(fd, from))
	}
	err = errors.Join(err, syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
	if err == nil {
		err = syscall.Connect(fd, &d.servers[server])
		if errors.Is(err, syscall.EINPROGRESS) {
			err = nil
		}
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", d.plan.Addrs[server], err), syscall.Close(fd))
	}
	return fd, nil
}

// send writes all of b; a part is an error, as what clients send is short.
func send(c *conn, b []byte) error {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return errno
	}
	if int(n) < len(b) {
		return errors.New("the server does not read: its socket took a part of a request only")
	}
	return nil
}

func recv(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// hangUp closes a socket with a reset, which leaves nothing behind that holds
// its port.
func hangUp(fd int) error {
	return errors.Join(
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}),
		syscall.Close(fd))
}
