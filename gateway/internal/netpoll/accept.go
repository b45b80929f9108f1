package netpoll

import (
	"errors"
	"net/netip"
	"syscall"
)

// Accepted is an accepted descriptor: non-blocking, closed on exec.
type Accepted struct {
	FD   int
	Addr netip.AddrPort
}

// OutOfFiles reports whether err says that the process or the system has no
// descriptors left.
func OutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
