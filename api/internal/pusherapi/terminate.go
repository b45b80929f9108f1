package pusherapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/control"
)

// terminate is POST /apps/ID/users/U/terminate_connections: all connections of the user are closed. The body is {} or empty.
func (h *Handler) terminate(ctx context.Context, c *call) (answer, error) {
	if c.name == "" || len(c.name) > c.app.Limits.UserIDBytes || !utf8.ValidString(c.name) {
		return answer{}, refuse(http.StatusBadRequest, "user id %q must have 1 to %d bytes of UTF-8", c.name, c.app.Limits.UserIDBytes)
	}
	if body := bytes.TrimSpace(c.body); len(body) > 0 && (body[0] != '{' || !jsonx.Valid(body)) {
		return answer{}, refuse(http.StatusBadRequest, "the body must be {} or empty")
	}
	if err := h.deps.Fleet.Tell(ctx, control.Command{App: c.app.ID, TerminateUser: c.name}); err != nil {
		return answer{}, fmt.Errorf("terminate connections: %w", err)
	}
	return answer{status: http.StatusOK, body: emptyObject}, nil
}
