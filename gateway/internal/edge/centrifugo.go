package edge

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session/centrifugo"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// centrifugoClient is a client with a centrifugo.Session.
type centrifugoClient struct {
	client
	session centrifugo.Session
}

var (
	_ centrifugo.Host = (*centrifugoClient)(nil)
	_ operable        = (*centrifugo.Session)(nil)
)

// Centrifugo is Centrifugo's protocol by WebSocket, in the encoding of d.
func Centrifugo(d *codec.Dialect) Protocol {
	return Protocol{Protocol: d, birth: func(b *birth) *client {
		opt := centrifugo.Options{Transport: webSocketName, Frames: true}
		if d.Unidirectional() {
			opt.Transport = codec.UniName
		}
		c := newCentrifugoClient(d, opt, b)
		if b.hello.First != "" {
			c.sess = &introduced{Session: &c.session, c: c, first: strings.Clone(b.hello.First)}
		}
		return &c.client
	}}
}

// CentrifugoHTTP is Centrifugo's protocol for clients without WebSockets.
func CentrifugoHTTP(h *codec.HTTP) Protocol {
	return Protocol{Protocol: h, http: h, birth: func(b *birth) *client {
		return &newCentrifugoClient(h.Dialect, centrifugo.Options{Transport: h.Transport().StreamName}, b).client
	}}
}

func newCentrifugoClient(d *codec.Dialect, opt centrifugo.Options, b *birth) *centrifugoClient {
	c := &centrifugoClient{}
	c.client = b.client(&c.session)
	edge := b.h.edge
	a := edge.cfg.Apps.ForCentrifugo(b.hello.Key, b.hello.Host)
	opt.Now = b.h.loop.Now()
	opt.Random = scatter(uint64(edge.cfg.NodeNumber)<<32 ^ packed(b.conn.Handle()))
	if a == nil {
		opt.Refuse = noApp(edge.cfg.Apps, b.hello.Key)
	} else {
		c.counted = true
		over := edge.apps.add(a)
		switch {
		case a.Disabled:
			opt.Refuse = &dialect.Refusal{Reason: dialect.AppDisabled}
		case !a.MatchOrigin(b.head.Header("Origin")):
			opt.Refuse = &dialect.Refusal{Reason: dialect.BadOrigin}
		case over:
			opt.Refuse = &dialect.Refusal{Reason: dialect.OverQuota}
		}
		opt.Headers = forwarded(a, b.head)
	}
	c.session.Init(d, a, opt, c)
	return c
}

// noApp says why there is no app for a client that has named one, or has left
// that to its Host header.
func noApp(apps *app.Registry, named string) *dialect.Refusal {
	no := &dialect.Refusal{Reason: dialect.AppUnknown}
	switch {
	case named == "":
	case apps.ByID(named) == nil && apps.ByKey(named) == nil:
		no.Message = fmt.Sprintf("bad request: there is no app %.40q", named)
	default:
		no.Message = fmt.Sprintf("bad request: the app %.40q takes no Centrifugo clients", named)
	}
	return no
}

// introduced is the life of a client whose URL has brought its first message,
// until it is open.
type introduced struct {
	*centrifugo.Session
	c     *centrifugoClient
	first string
}

// Open implements life.
func (i *introduced) Open(now int64) {
	i.c.sess = i.Session
	i.Session.Open(now)
	i.c.hear([]byte(i.first))
}

// forwarded are the headers that some hook of the app may see.
func forwarded(a *app.App, head *httphead.Head) map[string]string {
	var headers map[string]string
	for _, name := range a.ForwardedHeaders() {
		if value := head.Header(name); value != "" {
			if headers == nil {
				headers = map[string]string{}
			}
			headers[name] = strings.Clone(value)
		}
	}
	return headers
}

// Disconnect implements centrifugo.Host.
func (c *centrifugoClient) Disconnect(why dialect.Reason, code int, reason string) {
	c.disconnect(why, code, reason)
}

// Refused implements centrifugo.Host.
func (c *centrifugoClient) Refused(why dialect.Reason) { c.h.stats.refused[why].Add(1) }

// Probe implements centrifugo.Host.
func (c *centrifugoClient) Probe() { c.conn.Ping() }

// Wake implements centrifugo.Host.
func (c *centrifugoClient) Wake(at int64) { c.wake(at) }

// Unix implements centrifugo.Host.
func (c *centrifugoClient) Unix() int64 { return time.Now().Unix() }

// Identify implements centrifugo.Host.
func (c *centrifugoClient) Identify(user string) bool {
	if !c.admit(user) {
		return false
	}
	c.become(user)
	return true
}

// Decide implements centrifugo.Host.
func (c *centrifugoClient) Decide(call uint32, req any) {
	c.h.edge.cfg.Answers.Decide(req, func(d authz.Decision) {
		c.answer(func() { c.session.Decided(call, d, c.h.loop.Now()) })
	})
}

// Publish implements centrifugo.Host. Clients get what they publish, and get
// it before they are told that it is published.
func (c *centrifugoClient) Publish(call uint32, pub *message.Publication) {
	c.h.stats.clientEvents.Add(1)
	edge := c.h.edge
	partition := c.key(pub.Channel).Partition(edge.cfg.Partitions)
	edge.cfg.Answers.Submit(pub, func(pos message.Position, why dialect.Reason) {
		told := func() {
			c.answer(func() { c.session.Published(call, why, c.h.loop.Now()) })
		}
		if pos == 0 {
			told()
			return
		}
		edge.interest.After(partition, pos, func() { c.h.run(told) }) // in the turn after that of the publication
	})
}

// Presence implements centrifugo.Host.
func (c *centrifugoClient) Presence(call uint32, name string) {
	c.h.edge.cfg.Answers.Members(c.key(name), func(members []presence.Member, err error) {
		m := &centrifugo.Members{List: members}
		if err != nil {
			c.h.edge.cfg.Log.Debug("the members of a channel can't be told to a client", "channel", name, "err", err)
			m = nil
		}
		c.answer(func() { c.session.PresenceCame(call, m, c.h.loop.Now()) })
	})
}

// History implements centrifugo.Host.
func (c *centrifugoClient) History(call uint32, q *centrifugo.HistoryQuestion) {
	c.h.edge.cfg.Answers.Stream(c.key(q.Channel), q.Page, func(past *resume.Past, top message.Position, err error) {
		var h *centrifugo.Stream
		if err == nil {
			h = &centrifugo.Stream{Epoch: past.Epoch, Top: top, Entries: past.Entries}
		} else {
			c.h.edge.cfg.Log.Debug("the history of a channel can't be told to a client", "channel", q.Channel, "err", err)
		}
		c.answer(func() { c.session.HistoryCame(call, h, c.h.loop.Now()) })
	})
}

// operable is implemented by sessions that backends can change: see
// control.Operation. What others do about an operation is said at operate.
type operable interface {
	Operate(op *control.Operation, now int64)
}
