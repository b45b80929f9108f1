package fleet

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
