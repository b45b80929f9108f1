// Package publisher is the client of the routers' publish endpoint: api and
// gateways hand it publications, it packs those of one partition into one
// request and gives every caller its receipt. It knows NATS and nothing of
// how a router stores.
package publisher

import (
	"errors"

	"github.com/carillon-rt/carillon/proto/message"
)

// Receipt is a router's answer for one publication.
type Receipt struct {
	// Position and Epoch are set for durable channels.
	Position message.Position
	Epoch    string
	// Duplicate: the idempotency key was used before; Position is that of the
	// first publication.
	Duplicate bool
	// Err is nil, ErrUnavailable (retry), or what is wrong with the publication.
	Err error
}

// ErrUnavailable means that no router could take the publication in time. It
// may or may not have been stored; a retry with the same idempotency key is
// safe.
var ErrUnavailable = errors.New("publisher: no router took the publication in time, try again")
