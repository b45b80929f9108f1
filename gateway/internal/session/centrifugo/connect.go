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
)

// A connection's way:
//
//	connect -> Cluster.Decide -> Decided -> subscriptions of the server -> reply
//	   -> their Live -> commands that came meanwhile

// connect is what is kept until the client is connected.
type connect struct {
	id       uint32
	deadline int64
	places   map[string]codec.SubscribeRequest // what the client knows of the server's subscriptions
	creds    *authz.Credentials
	results  map[string]*codec.SubscribeResult
	open     int // subscriptions that are not made yet
	// waiting are the commands that came meanwhile.
	waiting      []postponed
	waitingBytes int
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
	// Of the headers that a client writes into its connect command.
	headerBytesMax = 8 << 10
)

// begin asks who the connection is.
func (s *Session) begin(id uint32, b *codec.ConnectRequest) {
	s.phase = connecting
	s.connect = &connect{id: id, deadline: s.due, places: b.Subs}
	s.identity.emulated = emulated(s.app.EmulatedHeaders(), b.Headers)
	req := &authz.Connect{
		Client: s.about(), Token: b.Token, Data: kept(b.Data), Name: b.Name, Version: b.Version, Channels: slices.Sorted(maps.Keys(b.Subs)),
	}
	number, _ := s.call(0, onDecision(s.identified))
	s.connect.open = 1 // until identified
	s.host.Decide(number, req)
}

// emulated are those of the client's own headers that some hook may see.
func emulated(names []string, headers map[string]string) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	var kept map[string]string
	size := 0
	for name, value := range headers {
		name = strings.ToLower(name)
		size += len(name) + len(value)
		if size > headerBytesMax || !slices.Contains(names, name) {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}

// postpone keeps a command until the client is connected.
func (s *Session) postpone(cmd *codec.Command) {
	c := s.connect
	switch b := cmd.Body.(type) { // what aliases the message
	case *codec.SubscribeRequest:
		b.Data = kept(b.Data)
		c.waitingBytes += len(b.Data) + len(b.Channel) + len(b.Token)
	case *codec.PublishRequest:
		b.Data = kept(b.Data)
		c.waitingBytes += len(b.Data)
	case *codec.RPCRequest:
		b.Data = kept(b.Data)
		c.waitingBytes += len(b.Data)
	case *codec.SendRequest:
		b.Data = nil
	}
	if len(c.waiting) == waitingMax || c.waitingBytes > waitingBytesMax {
		s.Shut(dialect.Flood)
		return
	}
	c.waiting = append(c.waiting, postponed{*cmd, s.due})
}

// identified goes on with the decision about the connection.
func (s *Session) identified(d *authz.Decision, now int64) {
	if s.phase != connecting {
		return
	}
	c := s.connect
	c.open = 0
	switch why := reasonOf(d); {
	case d.Allow:
	case d.Verdict != nil || why != dialect.BadToken && why != dialect.Unauthorized:
		s.fail(func() { s.denied(c.id, d) })
		return
	case why == dialect.Unauthorized:
		s.Shut(dialect.Anonymous)
		return
	default:
		s.Shut(why)
		return
	}
	creds := d.Credentials
	if creds == nil {
		creds = &authz.Credentials{}
	}
	if creds.Expired || s.past(creds.ExpireAt) {
		s.fail(func() { s.refuse(c.id, dialect.TokenExpired, "") })
		return
	}
	if creds.User != "" && !s.host.Identify(creds.User) {
		return
	}
	s.become(creds, now)
	c.creds = creds
	s.subscribeByServer(creds.Subs, now)
	if s.phase == connecting && c.open == 0 {
		s.finish(now)
	}
}

// fail answers connect with an error, after which the connection is of no use.
func (s *Session) fail(answer func()) {
	s.phase = failed
	answer()
	for i := len(s.subs.Rows) - 1; i >= 0; i-- {
		s.remove(i)
	}
	s.connect = nil
}

// become takes what credentials say of the connection.
func (s *Session) become(creds *authz.Credentials, now int64) {
	s.identity.user, s.identity.info, s.identity.meta = creds.User, creds.Info, creds.Meta
	s.live(creds, now)
}

// live takes how long credentials are good for.
func (s *Session) live(creds *authz.Credentials, now int64) {
	s.clock.expireAt = s.after(creds.ExpireAt, now)
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

// subscribeByServer makes the subscriptions that come with the credentials.
func (s *Session) subscribeByServer(grants map[string]authz.Grant, now int64) {
	c := s.connect
	if n := s.app.Limits.Subscriptions; n > 0 && len(grants) > n {
		s.Shut(dialect.Subscriptions)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		if s.phase != connecting {
			return
		}
		grant := grants[name]
		if channel.Validate(name) != nil || s.past(grant.ExpireAt) {
			continue // the application's mistake must not cost the client its connection
		}
		place := c.places[name]
		place.Channel, place.JoinLeave = name, false // only where the application forces it
		c.open++
		s.subs.Add(subscription{name: name, flags: byServer, deadline: c.deadline})
		s.attach(len(s.subs.Rows)-1, &place, &grant, true, now)
	}
}

// made is a subscription of the server that has been made; the last one
// completes the connect.
func (s *Session) made(name string, r *codec.SubscribeResult, now int64) {
	c := s.connect
	if c.results == nil {
		c.results = map[string]*codec.SubscribeResult{}
	}
	c.results[name] = r
	if c.open--; c.open == 0 {
		s.finish(now)
	}
}

// finish answers connect.
func (s *Session) finish(now int64) {
	c := s.connect
	s.connect = nil
	s.phase = connected
	r := &codec.ConnectResult{
		Client: s.host.SocketID(), Version: Version, Data: c.creds.Data, Subs: c.results,
		Ping: uint32(pingInterval / second), Pong: true,
	}
	if s.identity.refresher == client {
		r.Expires, r.TTL = true, s.ttl(c.creds.ExpireAt)
	}
	if node, id, ok := s.host.SessionID(); ok {
		r.Session, r.Node = id, node
	}
	s.clock.pingAt = firstPing(now, s.opt.Random)
	s.wake(s.clock.pingAt)
	s.reply(c.id, r)
	for _, name := range slices.Sorted(maps.Keys(c.results)) {
		if i := s.subs.Find(name); i >= 0 && s.subs.Rows[i].state == session.Live {
			s.welcome(&s.subs.Rows[i])
			if !s.host.Live(name) {
				s.Shut(dialect.LostPlace)
				return
			}
		}
	}
	for i := range c.waiting {
		if s.phase != connected {
			return
		}
		s.due = c.waiting[i].due
		s.do(&c.waiting[i].Command, now)
	}
}
