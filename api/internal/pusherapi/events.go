package pusherapi

import (
	"context"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/api/internal/publish"
	"github.com/carillon-rt/carillon/proto/message"
)

// trigger is POST /apps/ID/events: one event to one or several channels.
func (h *Handler) trigger(ctx context.Context, c *call) (answer, error) {
	ev, err := decodeEvent(c.body)
	if err != nil {
		return answer{}, err
	}
	pubs, err := h.appendEvent(make([]*message.Publication, 0, len(ev.channels)), c, &ev, 0, 0)
	if err != nil {
		return answer{}, err
	}
	if err := h.send(ctx, c, pubs); err != nil {
		return answer{}, err
	}
	want := parseInfo(ev.info)
	if !want.counts() {
		return answer{status: http.StatusOK, body: emptyObject}, nil
	}
	return h.triggerInfo(ctx, c, ev.channels, want), nil
}

// batch is POST /apps/ID/batch_events: several events, each to one channel.
func (h *Handler) batch(ctx context.Context, c *call) (answer, error) {
	events, err := decodeBatch(c.body, c.app.Limits.BatchEvents)
	if err != nil {
		return answer{}, err
	}
	pubs := make([]*message.Publication, 0, len(events))
	for i := range events {
		ev := &events[i]
		if len(ev.channels) > 1 {
			return answer{}, refuse(http.StatusBadRequest, "batch[%d]: an event of a batch goes to one channel, set channel", i)
		}
		if pubs, err = h.appendEvent(pubs, c, ev, i, len(events)); err != nil {
			return answer{}, inBatch(i, err)
		}
	}
	if err := h.send(ctx, c, pubs); err != nil {
		return answer{}, err
	}
	return h.batchInfo(ctx, c, events), nil
}

// triggerChannel is the deprecated POST /apps/ID/channels/C/events?name=&socket_id=: the body is the data.
func (h *Handler) triggerChannel(ctx context.Context, c *call) (answer, error) {
	if len(c.body) == 0 {
		return answer{}, refuse(http.StatusBadRequest, "the body is empty, it is the data of the event")
	}
	if !utf8.Valid(c.body) {
		return answer{}, refuse(http.StatusBadRequest, "the body is not valid UTF-8")
	}
	ev := event{
		name: c.query.get("name"), channels: []string{c.name}, data: c.body, socketID: c.query.get("socket_id"),
	}
	pubs, err := h.appendEvent(nil, c, &ev, 0, 0)
	if err != nil {
		return answer{}, err
	}
	if err := h.send(ctx, c, pubs); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusAccepted, body: emptyObject}, nil
}

// appendEvent makes publications of event item of items in a request. An event without a key of its own takes that of the header,
// which all of them share.
func (h *Handler) appendEvent(pubs []*message.Publication, c *call, ev *event, item, items int) ([]*message.Publication, error) {
	if ev.rawData && h.saidRawData.CompareAndSwap(false, true) {
		h.deps.Log.Info("data of an event is not a string, its JSON text is sent; said once", "app", c.app.ID)
	}
	if !utf8.ValidString(ev.name) {
		return pubs, refuse(http.StatusBadRequest, "event name is not valid UTF-8")
	}
	out := publish.Event{
		Name: ev.name, Channels: ev.channels, Data: ev.data, Exclude: ev.socketID, Trace: c.trace, IdempotencyKey: ev.idempotencyKey,
	}
	if out.IdempotencyKey == "" {
		out.IdempotencyKey, out.KeyFirst, out.KeyItems = c.key, item, items
	}
	return h.deps.Publish.Append(pubs, c.app, &out)
}

func (h *Handler) send(ctx context.Context, c *call, pubs []*message.Publication) error {
	if err := h.admit(c, len(pubs)); err != nil {
		return err
	}
	_, err := h.deps.Publish.Send(ctx, pubs)
	return err
}

// inBatch says which event of the batch is meant.
func inBatch(i int, err error) error { return fmt.Errorf("batch[%d]: %w", i, err) }
