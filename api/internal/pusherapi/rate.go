package pusherapi

import (
	"fmt"
	"net/http"

	"github.com/carillon-rt/carillon/api/internal/rate"
)

// admit refuses messages that are over the app's rate.
func (h *Handler) admit(c *call, messages int) error {
	wait := h.deps.Rates.Take(c.app, messages, h.deps.Now())
	if wait == 0 {
		return nil
	}
	h.metrics.overRate.Inc()
	return &refusal{
		status: http.StatusTooManyRequests, retryAfter: rate.Seconds(wait),
		text: fmt.Sprintf("the app may publish %d messages a second (limits.publishes_per_second), try again in %d s",
			c.app.Limits.PublishesPerSecond, rate.Seconds(wait)),
	}
}
