// Package ingest is the routers' doors: requests of api and gateways, requests
// of backends, and plain messages from the work queue. It checks what comes
// in, hands it to the journal's writers and answers. It knows nothing of how
// they write.
package ingest

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"

	"github.com/carillon-rt/carillon/router/internal/journal"
)

// Writers take what was admitted.
type Writers interface {
	Submit(it *journal.Item)
	TrySubmit(it *journal.Item) error
	Kick()
}

// Hooks take the events that an application wants to be told.
type Hooks interface {
	Send(app string, ev hook.Event)
}

// reserved begin the event names that only Carillon itself sends (Pusher
// protocol).
var reserved = []string{"pusher:", "pusher_internal:"}

// itemSuffix is what the api adds to a key that the items of a request share.
const itemSuffix = len("#999")

// admission is the last check before a publication is written: whoever sent
// it, nothing else is believed.
type admission struct {
	apps *app.Registry
	now  func() time.Time
	// payloadMax is the largest message that the broker carries.
	payloadMax func() int64
}

// admit checks pub, fills in its time unless it has one, and makes the item of
// it. The error is
// always a *publisher.Error.
func (a *admission) admit(pub *message.Publication, now time.Time) (journal.Item, *app.App, error) {
	tenant := a.apps.ByID(pub.App)
	if tenant == nil {
		return journal.Item{}, nil, refuse(publisher.UnknownApp, "no app has the id %q", clip(pub.App))
	}
	if err := a.check(tenant, pub); err != nil {
		return journal.Item{}, tenant, err
	}
	if pub.TimeMs == 0 {
		pub.TimeMs = uint64(now.UnixMilli())
	}
	it := journal.Item{Pub: pub, Durable: tenant.Effective(pub.Channel).Durable() && !pub.Transient}
	if pub.IdempotencyKey != "" {
		it.MsgID = journal.KeyID(pub.App, pub.Channel, pub.IdempotencyKey)
		pub.IdempotencyKey = ""
	}
	return it, tenant, nil
}

func (a *admission) check(tenant *app.App, pub *message.Publication) error {
	if tenant.Disabled {
		return refuse(publisher.AppDisabled, "app %s is disabled", pub.App)
	}
	if err := channel.Validate(pub.Channel); err != nil {
		return refuse(publisher.BadChannel, "%s", err.Error())
	}
	switch pub.Kind {
	case message.Event, message.ClientEvent:
	case message.HistoryRemoved:
		if !tenant.Effective(pub.Channel).Durable() {
			return refuse(publisher.BadPublication, "channel %s has no history that could be removed", clip(pub.Channel))
		}
		pub.Transient = false // else it would not get into the journal
	default:
		return refuse(publisher.BadPublication, "publications of kind %d are not published, only events are", pub.Kind)
	}
	if err := checkEvent(tenant, pub.Event); err != nil {
		return err
	}
	if n := len(pub.IdempotencyKey); n > message.IdempotencyKeyMax+itemSuffix {
		return refuse(publisher.BadPublication, "idempotency key has %d bytes, at most %d are allowed", n, message.IdempotencyKeyMax)
	}
	if n, limit := len(pub.Data), tenant.Limits.EventBytes; limit > 0 && n > limit {
		return refuse(publisher.TooLarge, "data has %d bytes, app %s allows %d", n, pub.App, limit)
	}
	if n, limit := int64(pub.Size()), a.payloadMax(); n > limit {
		return refuse(publisher.TooLarge, "publication has %d bytes, the broker carries %d", n, limit)
	}
	return nil
}

func checkEvent(tenant *app.App, event string) error {
	if limit := tenant.Limits.EventNameBytes; limit > 0 && len(event) > limit {
		return refuse(publisher.BadEvent, "event name has %d bytes, app %s allows %d", len(event), tenant.ID, limit)
	}
	for _, prefix := range reserved {
		if strings.HasPrefix(event, prefix) {
			return refuse(publisher.BadEvent, "event name %q begins with the reserved prefix %q", event, prefix)
		}
	}
	return nil
}

func refuse(code publisher.Code, format string, args ...any) error {
	return &publisher.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// clip keeps what a stranger sent short in messages and logs.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strings.Clone(s[:most]) + "..."
	}
	return strings.Clone(s)
}
