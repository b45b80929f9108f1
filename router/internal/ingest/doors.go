package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/pace"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"

	"github.com/carillon-rt/carillon/router/internal/drain"
)

const (
	sweepInterval = 50 * time.Millisecond
	// What a door keeps unread before nats.go drops, which the requester sees as
	// a timeout. The lanes refuse long before.
	pendingMsgs  = 64 << 10
	pendingBytes = 256 << 20
	payloadSlack = 4 << 10
	// requestsTogether is how many requests a door takes before their
	// publications leave.
	requestsTogether = 64
)

// Config of the doors.
type Config struct {
	Node string
	// Patience is when a request is answered at the latest. Below the timeout of
	// publishers, so that they hear which publications are stored.
	Patience time.Duration
}

// Doors take publish requests.
type Doors struct {
	// immutable after NewDoors
	admission
	cfg     Config
	nc      *nats.Conn
	writers Writers
	hooks   Hooks
	log     *slog.Logger
	metrics *Metrics
	paces   *pace.Paces // of documents, by app id

	pending deadlines
}

// NewDoors prepares the doors; they open with Run.
func NewDoors(cfg Config, nc *nats.Conn, apps *app.Registry, w Writers, h Hooks, log *slog.Logger, m *Metrics) *Doors {
	return &Doors{
		admission: newAdmission(apps, nc), cfg: cfg, nc: nc, writers: w, hooks: h, log: log, metrics: m,
		paces: pace.New(time.Now()),
	}
}

func newAdmission(apps *app.Registry, nc *nats.Conn) admission {
	return admission{apps: apps, now: time.Now, payloadMax: func() int64 { return nc.MaxPayload() - payloadSlack }}
}

// Run opens the doors until ctx ends; then it closes them and handles what
// came in before. Publications may be settled after it has returned.
func (d *Doors) Run(ctx context.Context) error {
	var subs []*nats.Subscription
	open := func(subj, queue string, handle nats.MsgHandler) error {
		sub, err := d.nc.QueueSubscribe(subj, queue, handle)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subj, err)
		}
		subs = append(subs, sub)
		return sub.SetPendingLimits(pendingMsgs, pendingBytes)
	}
	defer func() { drain.Subscriptions(subs...) }()
	for _, door := range []struct {
		subject string
		handle  nats.MsgHandler
	}{
		{subject.RouterPublish(d.cfg.Node), d.door()},
		{subject.AnyRouterPublish, d.door()},
		{subject.AllPublish, d.documentDoor()},
	} {
		if err := open(door.subject, subject.Queue, door.handle); err != nil {
			return err
		}
	}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			d.metrics.expired.Add(float64(d.pending.sweep(now)))
		}
	}
}

// door returns a handler of publishers' requests with a scratch of its own:
// each subscription has its own goroutine.
func (d *Doors) door() nats.MsgHandler {
	var pubs []message.Publication
	kick := d.kicker()
	return func(msg *nats.Msg) {
		pubs = d.takeBatch(msg, pubs[:0])
		clear(pubs) // they alias the request
		kick(msg.Sub)
	}
}

// kicker returns a function that starts the lanes when the door has taken
// all requests that are there, or enough of them: requests that come together
// leave in one batch. It is for one door.
func (d *Doors) kicker() func(*nats.Subscription) {
	held := 0
	return func(sub *nats.Subscription) {
		held++
		// The request that is being handled counts as pending.
		if n, _, err := sub.Pending(); err == nil && n > 1 && held < requestsTogether {
			return
		}
		held = 0
		d.writers.Kick()
	}
}

func (d *Doors) takeBatch(msg *nats.Msg, pubs []message.Publication) []message.Publication {
	d.metrics.requests.Inc()
	r := message.NewReader(msg.Data)
	var pub message.Publication
	for len(pubs) < message.BatchPublicationsMax && r.Next(&pub) {
		pubs = append(pubs, pub)
	}
	if err := r.Err(); err != nil || len(pubs) == 0 {
		d.metrics.malformed.Inc()
		d.log.Warn("a publish request can't be read", "bytes", len(msg.Data), "err", err)
		refusal := publisher.Receipt{Err: refuse(publisher.BadPublication, "publish request can't be read: %v", err)}
		_ = msg.Respond(publisher.AppendReply(nil, "", []publisher.Receipt{refusal}))
		return pubs
	}
	d.submit(msg, pubs, nil, encodeReply)
	return pubs
}

// encodeReply is the answer to a publisher. All positions of a reply belong
// to one epoch: should it have changed in between, those of another are left
// out.
func encodeReply(receipts []publisher.Receipt) []byte {
	epoch := ""
	for i := range receipts {
		if receipts[i].Epoch != "" {
			epoch = receipts[i].Epoch
		}
	}
	for i := range receipts {
		if receipts[i].Epoch != epoch {
			receipts[i].Position = 0
		}
	}
	return publisher.AppendReply(make([]byte, 0, 32+10*len(receipts)), epoch, receipts)
}

// documentDoor returns a handler of backends' requests with a scratch of its
// own.
func (d *Doors) documentDoor() nats.MsgHandler {
	scratch, kick := &documents{}, d.kicker()
	return func(msg *nats.Msg) {
		d.takeDocument(msg, scratch)
		scratch.forget() // it aliases the request
		kick(msg.Sub)
	}
}

func (d *Doors) takeDocument(msg *nats.Msg, scratch *documents) {
	d.metrics.documents.Inc()
	pubs, errs, err := scratch.parse(subject.PublishApp(msg.Subject), msg.Data)
	if err != nil {
		d.metrics.malformed.Inc()
		if msg.Reply != "" {
			_ = msg.Respond(encodeRefusal(err))
		}
		return
	}
	if err := d.inTime(subject.PublishApp(msg.Subject), len(pubs)); err != nil {
		d.metrics.overRate.Add(float64(len(pubs)))
		refuseAll(msg, len(pubs), err)
		return
	}
	if trace := msg.Header.Get(traceHeader); trace != "" {
		for i := range pubs {
			pubs[i].Trace = trace
		}
	}
	d.submit(msg, pubs, errs, encodeDocument)
}

// inTime is nil when an app may publish a document of n publications now. Of
// an app that is unknown or disabled each publication is refused elsewhere.
func (d *Doors) inTime(app string, n int) error {
	of := d.apps.ByID(app)
	if of == nil || of.Disabled {
		return nil
	}
	return overRate(d.paces, of, n, d.now())
}

// refuseAll answers a document of n publications, none of which is taken.
func refuseAll(msg *nats.Msg, n int, err error) {
	if msg.Reply == "" {
		return
	}
	receipts := make([]publisher.Receipt, n)
	for i := range receipts {
		receipts[i].Err = err
	}
	// Failing means that the connection is closed: the requester times out.
	_ = msg.Respond(encodeDocument(receipts))
}

// submit admits the publications one by one; errs[i], if any, refuses
// publication i beforehand. They leave with the next Kick.
func (d *Doors) submit(msg *nats.Msg, pubs []message.Publication, errs []error, encode func([]publisher.Receipt) []byte) {
	now := d.now() // once: asking for the time costs as much as half of the rest
	req := newRequest(msg, len(pubs), now.Add(d.cfg.Patience), encode)
	req.hooks = d.hooks
	d.pending.add(req)
	for i := range pubs {
		it, tenant, err := d.admit(&pubs[i], now)
		if err == nil && errs != nil {
			err = errs[i]
		}
		if err != nil {
			d.metrics.refuse(err)
			req.Settle(i, publisher.Receipt{Err: err})
			continue
		}
		d.wantHook(req, i, tenant, &pubs[i])
		it.Deadline, it.Ticket, it.Index = req.deadline, req, i
		d.writers.Submit(&it)
	}
}

// wantHook notes the webhook event of a client event, which is sent when the
// event is accepted.
func (d *Doors) wantHook(req *request, i int, tenant *app.App, pub *message.Publication) {
	if pub.Kind != message.ClientEvent || !tenant.WantsHook(hook.ClientEvent, pub.Channel) {
		return
	}
	ev := hook.Event{
		Name: hook.ClientEvent, Channel: strings.Clone(pub.Channel), Event: strings.Clone(pub.Event),
		Data: string(pub.Data), SocketID: strings.Clone(pub.Exclude), TimeMs: int64(pub.TimeMs),
	}
	if channel.KindOf(pub.Channel).Presence {
		ev.UserID = plainID(pub.UserID)
	}
	req.mu.Lock()
	defer req.mu.Unlock()
	if req.told == nil {
		req.told = map[int]toldHook{}
	}
	req.told[i] = toldHook{tenant.ID, ev}
}

// plainID turns a user id as JSON into its text: webhooks carry ids as
// strings, whatever the application used.
func plainID(raw string) string {
	var text string
	if json.Unmarshal([]byte(raw), &text) == nil {
		return text
	}
	return strings.Clone(raw)
}
