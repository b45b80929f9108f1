package netpoll

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors reports whether this system's poller watches descriptors.
const Descriptors = true

// RecvFD reads from a socket. It returns io.EOF at the end of the stream and
// ErrAgain when nothing is there yet.
func RecvFD(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, ErrAgain
		}
		return 0, os.NewSyscallError("recv", errno)
	}
}

// SendFD writes to a socket what fits into its send buffer. It returns
// ErrAgain when nothing does.
func SendFD(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, sendError(errno)
		}
	}
}

// SendVector is a reusable list of buffers for SendAllFD. The zero value is
// ready; it is not safe for concurrent use.
type SendVector struct {
	iov []unix.Iovec
	hdr unix.Msghdr
}

// SendAllFD writes several buffers with one system call, as SendFD does. At
// most 1024 buffers are looked at.
func (v *SendVector) SendAllFD(fd int, bufs [][]byte) (int, error) {
	v.iov = v.iov[:0]
	for _, b := range bufs[:min(len(bufs), 1024)] {
		if len(b) == 0 {
			continue
		}
		iov := unix.Iovec{Base: &b[0]}
		iov.SetLen(len(b))
		v.iov = append(v.iov, iov)
	}
	defer clear(v.iov)
	if len(v.iov) == 0 {
		return 0, nil
	}
	v.hdr.Iov = &v.iov[0]
	v.hdr.SetIovlen(len(v.iov))
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&v.hdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, sendError(errno)
		}
	}
}

func sendError(errno syscall.Errno) error {
	if errno == unix.EAGAIN {
		return ErrAgain
	}
	return os.NewSyscallError("send", errno)
}

// ShutdownFD ends the sending side of a socket.
func ShutdownFD(fd int) error {
	return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
}

// CloseFD closes a descriptor. That does not wait: SO_LINGER is not set.
func CloseFD(fd int) error {
	if _, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0); errno != 0 {
		return os.NewSyscallError("close", errno)
	}
	return nil
}

// ConnFD turns a socket into a net.Conn for ordinary goroutines. The
// descriptor is taken over: it is closed in any case.
func ConnFD(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}

// TakeFD is the opposite of ConnFD: it gives the socket of a net.Conn, which
// is closed in any case.
func TakeFD(conn *net.TCPConn) (fd int, err error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	if err := raw.Control(func(own uintptr) { fd, dup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", dup)
}
