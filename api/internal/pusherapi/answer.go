package pusherapi

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/api/internal/publish"
	"github.com/carillon-rt/carillon/kit/jsonx"
)

// emptyObject is the body of every success that has nothing to say; SDKs compare it exactly.
const emptyObject = "{}"

// jsonType is the Content-Type of all answers. Nobody changes it: a slice for each answer is an allocation.
var jsonType = []string{"application/json"}

// retryAfter is what a client is told to wait after a 503 or 429, in seconds, where nothing else is known.
const retryAfter = "1"

// answer is a response that is not written yet.
type answer struct {
	status     int
	body       string
	allow      string // the Allow header, for 405
	retryAfter int    // seconds, 0 for what is usual
	incomplete bool   // counts may be too low, see X-Carillon-Incomplete
}

// failure is the answer to a refused request: {"error":text,"code":status}.
func failure(status int, text string) answer {
	body := append([]byte(nil), `{"error":`...)
	body = jsonx.AppendString(body, text)
	body = append(body, `,"code":`...)
	body = strconv.AppendInt(body, int64(status), 10)
	return answer{status: status, body: string(append(body, '}'))}
}

func (a answer) write(w http.ResponseWriter) {
	header := w.Header()
	header["Content-Type"] = jsonType
	if a.allow != "" {
		header.Set("Allow", a.allow)
	}
	if a.incomplete {
		header.Set("X-Carillon-Incomplete", "true")
	}
	if a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests {
		wait := retryAfter
		if a.retryAfter > 0 {
			wait = strconv.Itoa(a.retryAfter)
		}
		header.Set("Retry-After", wait)
	}
	w.WriteHeader(a.status)
	// A client that is gone has no use for the error.
	_, _ = io.WriteString(w, a.body)
}

// unavailable says whether a repeat may succeed.
func unavailable(err error) bool {
	return publish.Retryable(err) || errors.Is(err, occupancy.ErrUnavailable) || errors.Is(err, fleet.ErrUnreachable)
}
