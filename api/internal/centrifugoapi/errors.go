package centrifugoapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Codes of the server API (Centrifugo, "error codes"). Those of 400 and above
// are the application's own.
const (
	codeInternal         = 100 // try again
	codeUnauthorized     = 101
	codeUnknownChannel   = 102
	codePermissionDenied = 103
	codeMethodNotFound   = 104
	codeLimitExceeded    = 106
	codeBadRequest       = 107
	codeNotAvailable     = 108
	codeTooManyRequests  = 111
	codeUnrecoverable    = 112
	codeConflict         = 113
	codeApplication      = 400 // and above
)

// Error is what a caller is told of a request that failed.
type Error struct {
	Code    uint32 `json:"code"`
	Message string `json:"message"`

	// absent says that the method is not there at all.
	absent bool
	// retryAfter in seconds, 0 if nothing is known of it.
	retryAfter int
}

func (e *Error) Error() string { return e.Message }

func refuse(code uint32, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *Error {
	return refuse(codeBadRequest, "bad request: "+format, args...)
}

func notAvailable(format string, args ...any) *Error {
	return refuse(codeNotAvailable, "not available: "+format, args...)
}

func limitExceeded(format string, args ...any) *Error {
	return refuse(codeLimitExceeded, "limit exceeded: "+format, args...)
}

// notOffered is the answer to a method that Carillon knows of and does not have.
func notOffered(method string) *Error {
	e := notAvailable("this server does not have the method %s", method)
	e.absent = true
	return e
}

// ofPublisher makes the error of a publication that was refused.
func ofPublisher(err error) *Error {
	var refused *publisher.Error
	if !errors.As(err, &refused) {
		return refuse(codeInternal, "internal server error: %v", err)
	}
	switch refused.Code {
	case publisher.TooLarge:
		return limitExceeded("%s", refused.Message)
	case publisher.Conflict:
		return refuse(codeConflict, "conflict: %s", refused.Message)
	case publisher.BadChannel, publisher.BadEvent, publisher.BadPublication:
		return badRequest("%s", refused.Message)
	case publisher.AppDisabled, publisher.UnknownApp:
		return refuse(codePermissionDenied, "permission denied: %s", refused.Message)
	case publisher.Unavailable, publisher.Busy:
	}
	return refuse(codeInternal, "internal server error: %s", refused.Message)
}

// failed makes the error of a call on the cluster that failed. What a repeat
// may mend is said; the rest is for the log.
func (c *Core) failed(ctx context.Context, what string, err error) *Error {
	if errors.Is(err, occupancy.ErrTooLarge) {
		return limitExceeded("%s: %v", what, err)
	}
	if errors.Is(err, occupancy.ErrUnavailable) || errors.Is(err, fleet.ErrUnreachable) {
		return refuse(codeInternal, "internal server error: %s: %v", what, err)
	}
	c.deps.Log.ErrorContext(ctx, "call of the Centrifugo server API failed", "call", what, "err", err)
	return refuse(codeInternal, "internal server error")
}
