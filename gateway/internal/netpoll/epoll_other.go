//go:build !linux

package netpoll

// New returns the system's best poller: Portable.
func New() (Poller, error) { return NewPortable(), nil }
