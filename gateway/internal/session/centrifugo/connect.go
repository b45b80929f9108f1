package centrifugo

import (
	"maps"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
)

// A connection's way:
//
//	connect -> Cluster.Decide -> Decided -> subscriptions of the server -> reply
//	   -> their Live -> commands that came meanwhile

// connect is what is kept until the client is connected.
type connect struct {
	command
	deadline int64
	places   map[string]codec.SubscribeRequest // what the client knows of the server's subscriptions
	token    bool                              // there is one: it is what the credentials are of
	creds    *authz.Credentials
	results  map[string]*codec.SubscribeResult
	open     int // subscriptions that are not made yet
	// waiting are the commands that came meanwhile.
	waiting      []postponed
	waitingBytes int // of the messages that they came in
	// operations are what backends wanted meanwhile.
	operations []*control.Operation
}

// postponed is a command that waits, and until when.
type postponed struct {
	codec.Command
	due int64
}

// What may wait until a client is connected.
const (
	waitingMax      = 1024
	waitingBytesMax = 128 << 10
	operationsMax   = 64
	// Of the headers that a client writes into its connect command.
	headerBytesMax = 8 << 10
)

// begin asks who the connection is.
func (s *Session) begin(id uint32, b *codec.ConnectRequest) {
	s.phase = connecting
	s.connect = &connect{command: command{s, id}, deadline: s.due, places: b.Subs, token: b.Token != ""}
	s.identity.hide(unseen{emulated: emulated(s.app.EmulatedHeaders(), b.Headers)})
	req := &authz.Connect{
		Client: s.about(), Token: b.Token, Data: kept(b.Data), Name: b.Name, Version: b.Version, Channels: slices.Sorted(maps.Keys(b.Subs)),
	}
	number, _ := s.call(0, onDecision(s.connect.identified))
	s.connect.open = 1 // until identified
	s.host.Decide(number, req)
}

// emulated are those of the client's own headers that some hook may see, in
// the order of their names as far as there is room.
func emulated(names []string, headers map[string]string) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	var kept map[string]string
	size := 0
	for _, given := range slices.Sorted(maps.Keys(headers)) {
		name, value := strings.ToLower(given), headers[given]
		if !slices.Contains(names, name) || size+len(name)+len(value) > headerBytesMax {
			continue
		}
		size += len(name) + len(value)
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}

// postpone keeps a command until the client is connected.
func (c *connect) postpone(cmd *codec.Command) {
	switch b := cmd.Body.(type) { // what aliases the message
	case *codec.SubscribeRequest:
		b.Data = kept(b.Data)
	case *codec.PublishRequest:
		b.Data = kept(b.Data)
	case *codec.RPCRequest:
		b.Data = kept(b.Data)
	case *codec.SendRequest:
		b.Data = nil
	}
	if len(c.waiting) == waitingMax {
		c.s.Shut(dialect.Flood)
		return
	}
	c.waiting = append(c.waiting, postponed{*cmd, c.s.due})
}

// later keeps an operation until the client is connected: its subscriptions and
// its lifetime are being made. One that would miss it has to come back.
func (c *connect) later(op *control.Operation) {
	if len(c.operations) == operationsMax {
		c.s.Shut(dialect.Unavailable)
		return
	}
	c.operations = append(c.operations, op)
}

// waits is how many commands wait.
func (c *connect) waits() int {
	if c == nil {
		return 0
	}
	return len(c.waiting)
}

// holds counts a message of which commands wait.
func (c *connect) holds(bytes int) {
	if c.waitingBytes += bytes; c.waitingBytes > waitingBytesMax {
		c.s.Shut(dialect.Flood)
	}
}

// identified goes on with the decision about the connection.
func (c *connect) identified(d *authz.Decision, now int64) {
	if c.s.phase != connecting {
		return
	}
	c.open = 0
	switch why := reasonOf(d); {
	case d.Allow:
	case d.Verdict != nil && d.Verdict.Disconnect:
		c.denied(d)
		return
	case d.Verdict != nil || why != dialect.BadToken && why != dialect.Unauthorized:
		c.fail(refusal(d))
		return
	case why == dialect.Unauthorized:
		c.s.Shut(dialect.Anonymous)
		return
	default:
		c.s.Shut(why)
		return
	}
	creds := d.Credentials
	if creds == nil {
		creds = &authz.Credentials{}
	}
	if creds.Expired || past(c.s.host, creds.ExpireAt) {
		c.fail(dialect.TokenExpired, errorOf(dialect.TokenExpired, ""))
		return
	}
	if creds.User != "" && !c.s.host.Identify(creds.User) {
		return
	}
	c.s.identity.is(creds)
	c.s.live(creds, now)
	c.creds = creds
	c.subscribeByServer(creds.Subs, now)
	if c.s.phase == connecting && c.open == 0 {
		c.finish(now)
	}
}

// fail answers connect with an error, after which the connection is of no use.
// Those that only listen are closed instead.
func (c *connect) fail(why dialect.Reason, e *codec.Error) {
	if c.s.dialect.Unidirectional() {
		c.s.host.Refused(why)
		code, text := codec.Ending(e)
		c.s.shut(why, code, text)
		return
	}
	c.s.phase = failed
	c.s.refuseWith(c.id, why, e)
	for i := len(c.s.subs.Rows) - 1; i >= 0; i-- {
		c.s.remove(i)
	}
	c.s.connect = nil
}

// is takes who credentials say that the connection is.
func (i *identity) is(creds *authz.Credentials) {
	i.user, i.info = creds.User, creds.Info
	i.hide(unseen{creds.Meta, creds.Claims, i.behind().emulated})
}

// live takes how long credentials are good for.
func (s *Session) live(creds *authz.Credentials, now int64) {
	s.clock.expireAt = after(s.host, creds.ExpireAt, now)
	switch {
	case creds.ExpireAt == 0:
		s.identity.refresher = nobody
	case creds.ServerRefresh:
		s.identity.refresher = server
	default:
		s.identity.refresher = client
	}
	if s.clock.expireAt > 0 {
		s.wake(s.clock.expireAt)
	}
}

// gives says whether the server's grant of a channel makes a subscription: a
// name that is none, or a grant that has expired, is the application's mistake,
// and must not cost the client its connection.
func gives(host Transport, name string, g *authz.Grant) bool {
	return channel.Validate(name) == nil && !past(host, g.ExpireAt)
}

// subscribeByServer makes the subscriptions that come with the credentials.
func (c *connect) subscribeByServer(grants map[string]authz.Grant, now int64) {
	if n := c.s.app.Limits.Subscriptions; n > 0 && len(grants) > n {
		c.s.Shut(dialect.Subscriptions)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		if c.s.phase != connecting {
			return
		}
		grant := grants[name]
		if !gives(c.s.host, name, &grant) {
			continue
		}
		place, eff := c.places[name], c.s.app.Effective(name)
		if text := wrongFilter(place.Filter, &eff); text != "" {
			c.fail(dialect.BadData, errorOf(dialect.BadData, "subs: "+name+": "+text))
			return
		}
		place.Channel, place.JoinLeave = name, false // only where the application forces it
		if c.s.dialect.Unidirectional() {
			place.Delta = ""
		}
		c.open++
		sub := subscription{name: name, flags: byServer, deadline: c.deadline}
		sub.set(byToken, c.token)
		c.s.subs.Add(sub)
		c.s.attach(len(c.s.subs.Rows)-1, &place, &grant, true, now)
	}
}

// made is a subscription of the server that has been made; the last one
// completes the connect.
func (c *connect) made(name string, r *codec.SubscribeResult, now int64) {
	if c.results == nil {
		c.results = map[string]*codec.SubscribeResult{}
	}
	c.results[name] = r
	if c.open--; c.open == 0 {
		c.finish(now)
	}
}

// finish answers connect.
func (c *connect) finish(now int64) {
	c.s.connect = nil
	c.s.phase = connected
	r := &codec.ConnectResult{
		Client: c.s.host.SocketID(), Version: Version, Data: c.creds.Data, Subs: c.results,
		Ping: uint32(int64(c.s.app.Centrifugo.PingInterval) / second), Pong: !c.s.dialect.Unidirectional(),
	}
	if c.s.identity.refresher == client {
		r.Expires, r.TTL = true, ttl(c.s.host, c.creds.ExpireAt)
	}
	if node, id, ok := c.s.host.SessionID(); ok {
		r.Session, r.Node = id, node
	}
	c.s.clock.pingAt = firstPing(now, int64(c.s.app.Centrifugo.PingInterval), c.s.opt.Random)
	c.s.wake(c.s.clock.pingAt)
	c.answer(r)
	c.s.host.Connected()
	for _, name := range slices.Sorted(maps.Keys(c.results)) {
		if i := c.s.subs.Find(name); i >= 0 && c.s.subs.Rows[i].state == session.Live {
			c.s.welcome(&c.s.subs.Rows[i])
			if !c.s.host.Live(name) {
				c.s.Shut(dialect.LostPlace)
				return
			}
		}
	}
	for _, op := range c.operations {
		c.s.Operate(op, now)
	}
	for i := range c.waiting {
		if c.s.phase != connected {
			return
		}
		c.s.due = c.waiting[i].due
		c.s.do(&c.waiting[i].Command, now)
	}
}

func (c *connect) answer(r *codec.ConnectResult) {
	if c.s.dialect.Unidirectional() {
		c.s.push("", (*codec.Connect)(r))
		return
	}
	c.reply(r)
}
