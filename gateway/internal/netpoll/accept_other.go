//go:build !linux

package netpoll

import (
	"errors"
	"net"
)

// Acceptor is a listening socket that loops accept from.
type Acceptor struct{}

// NewAcceptor refuses and closes ln: use net.Conns.
func NewAcceptor(ln net.Listener, _ int) (*Acceptor, error) {
	return nil, errors.Join(ErrUnsupported, ln.Close())
}

// Watch refuses.
func (a *Acceptor) Watch(Poller, int32, Interest, Interest) error { return ErrUnsupported }

// Accept refuses.
func (a *Acceptor) Accept() (Accepted, error) { return Accepted{}, ErrUnsupported }

// Close does nothing.
func (a *Acceptor) Close() error { return nil }
