// Package publish is the one way from an API to the routers: it checks an event against the limits of its app, makes publications of
// it and waits for their receipts. It knows no wire format of any API and not how a router stores.
package publish

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Sender hands publications to the routers and returns a receipt for each, in order. publisher.Publisher is one.
type Sender interface {
	PublishWait(ctx context.Context, pubs []*message.Publication) []publisher.Receipt
}

// Path checks and publishes. It may be used by any goroutine.
type Path struct {
	// immutable after New
	sender Sender
	now    func() time.Time
}

// New returns the publish path to sender.
func New(sender Sender, now func() time.Time) *Path { return &Path{sender: sender, now: now} }

// Event is one event to one or several channels.
type Event struct {
	Name     string
	Channels []string
	// Data is the payload, byte for byte.
	Data []byte
	// Exclude is the socket id of the connection that must not get it, or "".
	Exclude string
	// IdempotencyKey, if set, makes a repeat harmless: it gets the receipts of the first time.
	IdempotencyKey string
	// KeyFirst and KeyItems say that the key is shared: the channels are items KeyFirst and following of KeyItems. KeyItems 0 means
	// that the key is the event's own.
	KeyFirst, KeyItems int
	// Trace is a W3C traceparent, or "".
	Trace string
}

// Errors that say what kind of wrong an event is; what is wrong is in the text of what wraps them.
var (
	// ErrInvalid: the event breaks a rule, a repeat will not help.
	ErrInvalid = errors.New("invalid event")
	// ErrTooLarge: the data is over the limit of the app.
	ErrTooLarge = errors.New("event is too large")
	// ErrConflict: the idempotency key belongs to another event.
	ErrConflict = errors.New("idempotency key of another event")
)

// rejection is one of them with a text for the publisher.
type rejection struct {
	kind error
	text string
}

func (r *rejection) Error() string { return r.text }
func (r *rejection) Unwrap() error { return r.kind }

func invalid(format string, args ...any) error {
	return &rejection{ErrInvalid, fmt.Sprintf(format, args...)}
}

// Append checks ev against the limits of a and appends one publication per channel to pubs. What it appends aliases ev. The
// error wraps ErrInvalid or ErrTooLarge.
func (p *Path) Append(pubs []*message.Publication, a *app.App, ev *Event) ([]*message.Publication, error) {
	if err := check(a, ev); err != nil {
		return pubs, err
	}
	at, items := uint64(p.now().UnixMilli()), max(ev.KeyItems, len(ev.Channels))
	for i, name := range ev.Channels {
		pubs = append(pubs, &message.Publication{
			Kind: message.Event, App: a.ID, Channel: name, Event: ev.Name, Data: ev.Data, Exclude: ev.Exclude,
			Trace: ev.Trace, TimeMs: at, IdempotencyKey: keyAt(ev.IdempotencyKey, ev.KeyFirst+i, items),
		})
	}
	return pubs, nil
}

// keyAt is the idempotency key of item i of n that share one key.
func keyAt(key string, i, n int) string {
	if key == "" || n == 1 {
		return key
	}
	return key + "#" + strconv.Itoa(i)
}

// Send publishes pubs and returns their receipts. The error is publisher.ErrUnavailable or publisher.ErrBusy if any of them may
// be taken later (a repeat is safe with an idempotency key), else ErrTooLarge or ErrInvalid with what the router found
// wrong, else nil. Some of the publications may have been taken whatever the error.
func (p *Path) Send(ctx context.Context, pubs []*message.Publication) ([]publisher.Receipt, error) {
	receipts := p.sender.PublishWait(ctx, pubs)
	if len(receipts) != len(pubs) {
		return receipts, fmt.Errorf("%d receipts for %d publications: %w", len(receipts), len(pubs), publisher.ErrUnavailable)
	}
	var first error
	for i := range receipts {
		if receipts[i].Err == nil {
			continue
		}
		err := failure(pubs[i].Channel, receipts[i].Err)
		if Retryable(err) {
			return receipts, err
		}
		if first == nil {
			first = err
		}
	}
	return receipts, first
}

// Retryable says whether the same events may be taken later.
func Retryable(err error) bool {
	return errors.Is(err, publisher.ErrUnavailable) || errors.Is(err, publisher.ErrBusy)
}

// failure makes the error of a refused publication. An error that the publisher gives no code to may be a passing one.
func failure(name string, err error) error {
	var refused *publisher.Error
	switch {
	case !errors.As(err, &refused):
		return fmt.Errorf("publish to %s: %w: %w", name, err, publisher.ErrUnavailable)
	case refused.Code.Retryable():
		return fmt.Errorf("publish to %s: %w", name, err)
	case refused.Code == publisher.TooLarge:
		return &rejection{ErrTooLarge, "publish to " + name + ": " + refused.Message}
	case refused.Code == publisher.Conflict:
		return &rejection{ErrConflict, "publish to " + name + ": " + refused.Message}
	}
	return invalid("publish to %s: %s", name, refused.Message)
}

func check(a *app.App, ev *Event) error {
	limits := &a.Limits
	if err := checkName(ev.Name, limits.EventNameBytes); err != nil {
		return err
	}
	if len(ev.Data) > limits.EventBytes {
		return &rejection{ErrTooLarge, fmt.Sprintf("data of event %q has %d bytes, at most %d are allowed", ev.Name, len(ev.Data), limits.EventBytes)}
	}
	if len(ev.IdempotencyKey) > message.IdempotencyKeyMax {
		return invalid("idempotency key has %d bytes, at most %d are allowed", len(ev.IdempotencyKey), message.IdempotencyKeyMax)
	}
	if ev.Exclude != "" && !SocketID(ev.Exclude) {
		return invalid("socket_id is %q, want two numbers such as 123.456", ev.Exclude)
	}
	return checkChannels(ev.Channels, limits)
}

func checkName(name string, max int) error {
	switch {
	case name == "":
		return invalid("event name is missing")
	case len(name) > max:
		return invalid("event name has %d bytes, at most %d are allowed", len(name), max)
	case strings.HasPrefix(name, "pusher:"), strings.HasPrefix(name, "pusher_internal:"):
		return invalid("event name %q is reserved: it must not begin with pusher: or pusher_internal:", name)
	}
	return nil
}

func checkChannels(names []string, limits *app.Limits) error {
	if len(names) == 0 {
		return invalid("no channel is given: set channels to an array of names, or channel to one")
	}
	if len(names) > limits.ChannelsPerTrigger {
		return invalid("%d channels are given, at most %d are allowed", len(names), limits.ChannelsPerTrigger)
	}
	for _, name := range names {
		if err := channel.ValidatePusher(name, limits.ChannelNameBytes); err != nil {
			return invalid("channel %q: %v", name, err)
		}
		if len(names) > 1 && channel.KindOf(name).Encrypted {
			return invalid("channel %q is encrypted: an event for it can't go to other channels too, each has its own key", name)
		}
	}
	return nil
}

// SocketID says whether s has the form of a socket id: two decimal numbers with a dot between them.
func SocketID(s string) bool {
	first, second, ok := strings.Cut(s, ".")
	return ok && digits(first) && digits(second)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
