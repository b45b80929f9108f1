//go:build !linux

package netpoll

import "net"

// PrepareListener does nothing: connections are net.Conns.
func PrepareListener(net.Listener, int) error { return nil }

// Acceptor accepts descriptors.
type Acceptor struct{}

// NewAcceptor refuses: use net.Conns.
func NewAcceptor(net.Listener) (*Acceptor, error) { return nil, ErrUnsupported }

// Accept refuses.
func (a *Acceptor) Accept() ([]Accepted, error) { return nil, ErrUnsupported }

// Close does nothing.
func (a *Acceptor) Close() error { return nil }
