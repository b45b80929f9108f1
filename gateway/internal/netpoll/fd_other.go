//go:build !linux

package netpoll

import (
	"errors"
	"net"
)

// Descriptors reports whether this system's poller watches descriptors.
const Descriptors = false

// RecvFD refuses: use pipes.
func RecvFD(int, []byte) (int, error) { return 0, ErrUnsupported }

// SendFD refuses: use pipes.
func SendFD(int, []byte) (int, error) { return 0, ErrUnsupported }

// SendVector is a reusable list of buffers for SendAllFD.
type SendVector struct{}

// SendAllFD refuses: use pipes.
func (v *SendVector) SendAllFD(int, [][]byte) (int, error) { return 0, ErrUnsupported }

// ShutdownFD refuses: use pipes.
func ShutdownFD(int) error { return ErrUnsupported }

// CloseFD refuses: use pipes.
func CloseFD(int) error { return ErrUnsupported }

// ConnFD refuses: use pipes.
func ConnFD(int) (net.Conn, error) { return nil, ErrUnsupported }

// TakeFD refuses: use pipes.
func TakeFD(conn *net.TCPConn) (int, error) { return -1, errors.Join(ErrUnsupported, conn.Close()) }
