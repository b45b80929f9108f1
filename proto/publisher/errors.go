package publisher

import (
	"fmt"
)

// Code says why a publication was refused. Numbers are on the wire: append
// only.
type Code uint8

// Codes.
const (
	Unavailable    Code = 1 // nobody took it in time; retry
	Busy           Code = 2 // a queue is full; retry
	UnknownApp     Code = 3
	AppDisabled    Code = 4
	BadChannel     Code = 5
	BadEvent       Code = 6
	TooLarge       Code = 7
	BadPublication Code = 8 // malformed, or of a kind that is not published
	Conflict       Code = 9 // the idempotency key belongs to another publication
)

// Retryable says whether the same publication may be taken later.
func (c Code) Retryable() bool { return c == Unavailable || c == Busy }

// Error is why a publication was refused, and what would be right.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare codes, so that ErrUnavailable stands for every
// error with its code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errors that publishers compare with.
var (
	// ErrUnavailable means that no router could take the publication in time.
	// It may or may not have been stored; a retry with the same idempotency key
	// is safe.
	ErrUnavailable error = &Error{Unavailable, "no router took the publication in time, try again"}
	// ErrConflict means that the idempotency key was used within the window for
	// a publication that says something else. This one was not stored.
	ErrConflict error = &Error{Conflict, "the idempotency key was used before for an event with another name, data or socket_id: " +
		"use a new key for a new event, and repeat an event as it was"}
	// ErrBusy means that too much waits already. The publication was not
	// stored.
	ErrBusy error = &Error{Busy, "too many publications are waiting, try again"}
)

func tooLarge(size int, limit int64) error {
	return &Error{TooLarge, fmt.Sprintf("publication has %d bytes, the broker carries at most %d", size, limit)}
}
