// Package authority asks the authorization service, which knows the hooks of
// the apps. It owns the deadline; it knows no API's format.
package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Authority may be used by any goroutine.
type Authority struct {
	// immutable after New
	nc      *nats.Conn
	timeout time.Duration
}

// New returns an authority that answers within timeout, that of the
// application's hooks included.
func New(nc *nats.Conn, timeout time.Duration) *Authority { return &Authority{nc, timeout} }

// RPC has a hook of an app answer a call. The error wraps
// occupancy.ErrUnavailable when nobody answered. It is not tried again: a hook
// may have been called.
func (a *Authority) RPC(ctx context.Context, call authz.RPC) (authz.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	body, err := json.Marshal(call)
	if err != nil {
		return authz.Decision{}, fmt.Errorf("encode request to %s: %w", subject.AuthRPC, err)
	}
	msg, err := a.nc.RequestWithContext(ctx, subject.AuthRPC, body)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return authz.Decision{}, fmt.Errorf("%d bytes are %w", len(body), occupancy.ErrTooLarge)
	case err != nil:
		return authz.Decision{}, fmt.Errorf("ask %s: %w: %w", subject.AuthRPC, err, occupancy.ErrUnavailable)
	}
	var d authz.Decision
	if err := json.Unmarshal(msg.Data, &d); err != nil {
		return authz.Decision{}, fmt.Errorf("decode reply of %s: %w", subject.AuthRPC, err)
	}
	return d, nil
}
