package fleet

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many descriptors are served before the next wait.
const eventsAtOnce = 512

// poller is an epoll set.
type poller struct {
	fd     int
	events []syscall.EpollEvent
}

func newPoller() (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return poller{}, fmt.Errorf("epoll_create1: %w", err)
	}
	return poller{fd, make([]syscall.EpollEvent, eventsAtOnce)}, nil
}

// control changes what is told of fd, by its number.
func (p *poller) control(op, fd, number int, events uint32) error {
	ev := syscall.EpollEvent{Events: events, Fd: int32(number)}
	if err := syscall.EpollCtl(p.fd, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait asks without blocking first, which is cheaper on a busy loop.
func (p *poller) wait(timeout time.Duration) ([]syscall.EpollEvent, error) {
	n, err := epollNow(p.fd, p.events)
	if n == 0 && err == nil && timeout > 0 {
		n, err = epollWait(p.fd, p.events, timeout)
	}
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:max(n, 0)], nil
}

func (p *poller) close() error { return syscall.Close(p.fd) }

// epollNow is epoll_wait that does not block.
func epollNow(epoll int, events []syscall.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// epollWait waits with a precision that milliseconds don't have: at 1,000
// messages a second they would make each of them late. Linux has epoll_pwait2
// since 5.11; before, waits are rounded up.
func epollWait(epoll int, events []syscall.EpollEvent, timeout time.Duration) (int, error) {
	ts := unix.NsecToTimespec(timeout.Nanoseconds())
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == syscall.ENOSYS {
		return syscall.EpollWait(epoll, events, int((timeout+time.Millisecond-1)/time.Millisecond))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
