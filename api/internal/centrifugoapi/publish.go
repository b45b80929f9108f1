package centrifugoapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// PublishRequest publishes to a channel.
type PublishRequest struct {
	Channel string `json:"channel"`
	Content
}

// BroadcastRequest publishes the same to several channels.
type BroadcastRequest struct {
	Channels []string `json:"channels"`
	Content
}

// Content is what is published.
type Content struct {
	Data    json.RawMessage `json:"data"`
	B64Data string          `json:"b64data"`
	// SkipHistory: it is delivered and not kept.
	SkipHistory    bool              `json:"skip_history"`
	Tags           map[string]string `json:"tags"`
	IdempotencyKey string            `json:"idempotency_key"`
	// Delta is not needed: differences are made wherever the policy allows.
	Delta        bool   `json:"delta"`
	Version      uint64 `json:"version"`
	VersionEpoch string `json:"version_epoch"`
}

// PublishResult is where a publication is kept; zero where nothing is.
type PublishResult struct {
	Offset uint64 `json:"offset,omitempty"`
	Epoch  string `json:"epoch,omitempty"`
}

// BroadcastResult has one answer for each channel, in order.
type BroadcastResult struct {
	Responses []PublishResponse `json:"responses"`
}

// PublishResponse has one of both.
type PublishResponse struct {
	Error  *Error         `json:"error,omitempty"`
	Result *PublishResult `json:"result,omitempty"`
}

// Publish publishes to one channel.
func (c *Core) Publish(ctx context.Context, a *app.App, req *PublishRequest) (*PublishResult, *Error) {
	all, err := c.publish(ctx, a, []string{req.Channel}, &req.Content)
	if err != nil {
		return nil, err
	}
	return all[0].Result, all[0].Error
}

// Broadcast publishes to several channels. That one of them fails says nothing
// of the others.
func (c *Core) Broadcast(ctx context.Context, a *app.App, req *BroadcastRequest) (*BroadcastResult, *Error) {
	if len(req.Channels) == 0 {
		return nil, badRequest("channels is empty: give a list of names")
	}
	if n := len(req.Channels); n > BroadcastMax {
		return nil, limitExceeded("%d channels, at most %d are allowed", n, BroadcastMax)
	}
	all, err := c.publish(ctx, a, req.Channels, &req.Content)
	if err != nil {
		return nil, err
	}
	return &BroadcastResult{all}, nil
}

// publish gives the answers for the channels, or an error that concerns all.
func (c *Core) publish(ctx context.Context, a *app.App, channels []string, content *Content) ([]PublishResponse, *Error) {
	pub, err := c.publication(ctx, a, content)
	if err != nil {
		return nil, err
	}
	answers := make([]PublishResponse, len(channels))
	var pubs []*message.Publication
	var kept []bool
	for i, name := range channels {
		e, err := checkChannel(a, name)
		if err != nil {
			answers[i].Error = err
			continue
		}
		one := pub
		one.Channel = name
		pubs, kept = append(pubs, &one), append(kept, e.Durable() && !pub.Transient)
	}
	if err := c.admit(a, len(pubs)); err != nil {
		return nil, err
	}
	receipts := c.send(ctx, pubs)
	for i := range answers {
		if answers[i].Error == nil {
			answers[i] = c.receive(pubs[0], &receipts[0], kept[0])
			pubs, receipts, kept = pubs[1:], receipts[1:], kept[1:]
		}
	}
	return answers, nil
}

// sendBytes is how much of a broadcast is on its way at a time, so that it
// fits into the publisher's queues, and others do beside it.
const sendBytes = 4 << 20

// send publishes in portions, until one is not taken at all.
func (c *Core) send(ctx context.Context, pubs []*message.Publication) []publisher.Receipt {
	receipts := make([]publisher.Receipt, 0, len(pubs))
	for sent := 0; sent < len(pubs); sent = len(receipts) {
		n := min(len(pubs)-sent, max(1, sendBytes/pubs[0].Size()))
		some := c.deps.Sender.PublishWait(ctx, pubs[sent:sent+n])
		receipts = append(receipts, some...)
		if !slices.ContainsFunc(some, func(r publisher.Receipt) bool { return !errors.Is(r.Err, publisher.ErrUnavailable) }) {
			break
		}
	}
	for len(receipts) < len(pubs) {
		receipts = append(receipts, publisher.Receipt{Err: publisher.ErrUnavailable})
	}
	return receipts
}

// publication makes what is published of the content; its channel is missing.
func (c *Core) publication(ctx context.Context, a *app.App, content *Content) (message.Publication, *Error) {
	data, err := payload("data", content.Data, content.B64Data)
	if err != nil {
		return message.Publication{}, err
	}
	switch {
	case data == nil:
		return message.Publication{}, badRequest("data is missing: give any JSON, or b64data")
	case content.Version != 0 || content.VersionEpoch != "":
		return message.Publication{}, notAvailable("version is not supported: publications are delivered in the order of their arrival")
	case len(data) > a.Limits.EventBytes:
		return message.Publication{}, limitExceeded("data has %d bytes, app %s allows %d (limits.event_bytes)", len(data), a.ID, a.Limits.EventBytes)
	case len(content.Tags) > message.TagsMax:
		return message.Publication{}, limitExceeded("%d tags, at most %d are allowed", len(content.Tags), message.TagsMax)
	case len(content.IdempotencyKey) > message.IdempotencyKeyMax:
		return message.Publication{}, limitExceeded("idempotency_key has %d bytes, at most %d are allowed",
			len(content.IdempotencyKey), message.IdempotencyKeyMax)
	}
	trace := telemetry.Traceparent(ctx)
	if !telemetry.Sampled(trace) {
		trace = ""
	}
	return message.Publication{
		Kind: message.Event, App: a.ID, Data: data, TimeMs: uint64(c.deps.Now().UnixMilli()), Tags: tagsOf(content.Tags),
		IdempotencyKey: content.IdempotencyKey, Transient: content.SkipHistory, Trace: trace,
	}, nil
}

// payload gives JSON as it came, or what stands in base64; nil if there is
// neither.
func payload(name string, data json.RawMessage, b64 string) ([]byte, *Error) {
	if b64 == "" {
		return data, nil
	}
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return nil, badRequest("b64%s is not base64: %v", name, err)
	}
	return raw, nil
}

// tagsOf sorts tags by key: a repeat of a publication looks the same.
func tagsOf(m map[string]string) []message.Tag {
	if len(m) == 0 {
		return nil
	}
	tags := make([]message.Tag, 0, len(m))
	for k, v := range m {
		tags = append(tags, message.Tag{Key: k, Value: v})
	}
	slices.SortFunc(tags, func(a, b message.Tag) int { return strings.Compare(a.Key, b.Key) })
	return tags
}

// admit refuses publications that are over the app's rate.
func (c *Core) admit(a *app.App, n int) *Error {
	wait := c.deps.Rates.Take(a, n, c.deps.Now())
	if wait == 0 {
		return nil
	}
	e := refuse(codeTooManyRequests, "too many requests: app %s may publish %d messages a second (limits.publishes_per_second), try again in %d s",
		a.ID, a.Limits.PublishesPerSecond, rate.Seconds(wait))
	e.retryAfter = rate.Seconds(wait)
	return e
}

func (c *Core) receive(pub *message.Publication, r *publisher.Receipt, kept bool) PublishResponse {
	if r.Err != nil {
		return PublishResponse{Error: ofPublisher(r.Err)}
	}
	c.deps.Reader.Saw(pub.App, pub.Channel, r.Epoch, r.Position)
	if !kept {
		return PublishResponse{Result: &PublishResult{}}
	}
	return PublishResponse{Result: &PublishResult{Offset: uint64(r.Position), Epoch: r.Epoch}}
}
