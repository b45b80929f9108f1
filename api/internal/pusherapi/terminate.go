package pusherapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/subject"
)

// errControl means that a command may not have reached the gateways.
var errControl = errors.New("the gateways can't be reached now, try again")

// terminate is POST /apps/ID/users/U/terminate_connections: all connections of the user are closed. The body is {} or empty.
func (h *Handler) terminate(ctx context.Context, c *call) (answer, error) {
	if c.name == "" || len(c.name) > c.app.Limits.UserIDBytes || !utf8.ValidString(c.name) {
		return answer{}, refuse(http.StatusBadRequest, "user id %q must have 1 to %d bytes of UTF-8", c.name, c.app.Limits.UserIDBytes)
	}
	if body := bytes.TrimSpace(c.body); len(body) > 0 && (body[0] != '{' || !jsonx.Valid(body)) {
		return answer{}, refuse(http.StatusBadRequest, "the body must be {} or empty")
	}
	command, err := json.Marshal(control.Command{App: c.app.ID, TerminateUser: c.name})
	if err != nil {
		return answer{}, fmt.Errorf("encode command: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.PublishTimeout)
	defer cancel()
	if err := h.deps.Control.Publish(subject.GatewayControl, command); err != nil {
		return answer{}, fmt.Errorf("terminate connections: %w: %w", err, errControl)
	}
	// Only a flush shows that the server has it: a publish alone may sit in the reconnect buffer.
	if err := h.deps.Control.FlushWithContext(ctx); err != nil {
		return answer{}, fmt.Errorf("terminate connections: %w: %w", err, errControl)
	}
	return answer{status: http.StatusOK, body: emptyObject}, nil
}
