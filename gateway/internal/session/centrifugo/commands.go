package centrifugo

import (
	"fmt"
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// publish publishes what a client may publish: the policy says so, or what
// came with its subscription; a hook or a condition of the policy may say
// more.
func (s *Session) publish(id uint32, b *codec.PublishRequest) {
	limits := &s.app.Limits
	sub := s.subs.liveOn(b.Channel)
	eff := s.app.Effective(b.Channel)
	asks := eff.Rules != nil && (eff.Rules.PublishHook != "" || eff.Rules.PublishIf != "")
	switch {
	case b.Channel == "":
		s.bad("publish needs a channel")
	case b.Type != 0:
		s.refuse(id, dialect.NotAvailable, "map channels are not offered")
	case len(b.Data) == 0:
		s.refuse(id, dialect.BadData, "publish needs data")
	case limits.EventBytes > 0 && len(b.Data) > limits.EventBytes:
		s.refuse(id, dialect.TooLarge, fmt.Sprintf("the data has %d bytes, at most %d are allowed", len(b.Data), limits.EventBytes))
	case s.app.UnknownNamespace(b.Channel, eff):
		s.refuse(id, dialect.NoChannel, "")
	case eff.Encrypted || !channel.AllowsUser(b.Channel, s.identity.user) || !asks && !s.identity.allows(access(eff.Rules, publishing), sub, mayPublish):
		s.refuse(id, dialect.Unauthorized, "")
	case asks:
		req := &authz.Publish{Client: s.about(), Channel: b.Channel, Data: kept(b.Data), Subscribed: sub != nil, Granted: sub != nil && sub.has(mayPublish)}
		s.decide(req, id, func(d *authz.Decision, _ int64) { s.mayPublish(id, req, d) })
	default:
		s.sendOn(id, b.Channel, kept(b.Data), nil)
	}
}

func (s *Session) mayPublish(id uint32, req *authz.Publish, d *authz.Decision) {
	if !d.Allow {
		s.denied(id, d)
		return
	}
	s.sendOn(id, req.Channel, req.Data, d.Edited)
}

// sendOn hands a publication to the routers. The client gets it as every other
// subscriber does.
func (s *Session) sendOn(id uint32, name string, data []byte, e *authz.Edited) {
	chanInfo := ""
	if sub := s.subs.liveOn(name); sub != nil {
		chanInfo = sub.info
	}
	pub := &message.Publication{Kind: message.Event, App: s.app.ID, Channel: name, Data: data, Info: s.info(chanInfo)}
	if e != nil {
		if len(e.Data) > 0 {
			pub.Data = e.Data
		}
		for _, key := range slices.Sorted(maps.Keys(e.Tags)) {
			pub.Tags = append(pub.Tags, message.Tag{Key: key, Value: e.Tags[key]})
		}
		pub.IdempotencyKey, pub.Transient = e.IdempotencyKey, e.SkipHistory
	}
	s.send(pub, id, func(why dialect.Reason) {
		if why != dialect.None {
			s.refuse(id, why, "")
			return
		}
		s.reply(id, &codec.PublishResult{})
	})
}

// deed is what a policy says who may do.
type deed uint8

const (
	publishing deed = iota
	readingHistory
	readingPresence
)

func access(p *app.Policy, what deed) app.Access {
	switch {
	case p == nil:
		return app.Nobody
	case what == publishing:
		return p.Publish
	case what == readingHistory:
		return p.ReadHistory
	}
	return p.ReadPresence
}

// allows says whether the client may do something on a channel, of which sub is
// its live subscription: by policy, or by what came with the subscription.
func (i *identity) allows(who app.Access, sub *subscription, bit flags) bool {
	return who.Allows(i.user, sub != nil) || sub != nil && sub.has(bit)
}

// mayNotSee answers a question about presence that may not be asked.
func (s *Session) mayNotSee(id uint32, name string) bool {
	eff := s.app.Effective(name)
	sub := s.subs.liveOn(name)
	who := access(eff.Rules, readingPresence)
	if eff.Presence && (who == "" || who == app.Nobody) { // as every Pusher client
		who = app.Subscribers
	}
	switch {
	case name == "":
		s.bad("presence needs a channel")
	case s.app.UnknownNamespace(name, eff):
		s.refuse(id, dialect.NoChannel, "")
	case !eff.Presence && (eff.Rules == nil || !eff.Rules.Presence):
		s.refuse(id, dialect.NotAvailable, "the channel has no presence: see presence of its policy")
	case !channel.AllowsUser(name, s.identity.user) || !s.identity.allows(who, sub, maySee):
		s.refuse(id, dialect.Unauthorized, "")
	default:
		return false
	}
	return true
}

func (s *Session) presence(id uint32, name string) {
	if s.mayNotSee(id, name) {
		return
	}
	s.askMembers(id, name, func(m *Members) codec.Result {
		r := &codec.PresenceResult{Clients: make([]codec.Client, len(m.List))}
		for i := range m.List {
			info := codec.MemberInfo(name, m.List[i].RawID, []byte(m.List[i].Info))
			r.Clients[i] = codec.Client{ID: m.List[i].ID, Info: info}
		}
		return r
	})
}

func (s *Session) presenceStats(id uint32, name string) {
	if s.mayNotSee(id, name) {
		return
	}
	s.askMembers(id, name, func(m *Members) codec.Result {
		users := map[string]struct{}{}
		for i := range m.List {
			info := codec.ParseClientInfo(codec.MemberInfo(name, m.List[i].RawID, []byte(m.List[i].Info)))
			users[info.User] = struct{}{}
		}
		return &codec.PresenceStatsResult{Clients: uint32(len(m.List)), Users: uint32(len(users))}
	})
}

func (s *Session) askMembers(id uint32, name string, result func(*Members) codec.Result) {
	number, ok := s.call(id, onMembers(func(m *Members) {
		if m == nil {
			s.refuse(id, dialect.Unavailable, "the members of the channel can't be told now, try again")
			return
		}
		s.reply(id, result(m))
	}))
	if ok {
		s.host.Presence(number, name)
	}
}

// history reads what a channel keeps (client protocol, 1.3): without a limit
// the position only.
func (s *Session) history(id uint32, b *codec.HistoryRequest) {
	eff := s.app.Effective(b.Channel)
	sub := s.subs.liveOn(b.Channel)
	switch {
	case b.Channel == "":
		s.bad("history needs a channel")
		return
	case s.app.UnknownNamespace(b.Channel, eff):
		s.refuse(id, dialect.NoChannel, "")
		return
	case eff.History.Size == 0:
		s.refuse(id, dialect.NotAvailable, "the channel keeps no history: see history of its policy")
		return
	case !channel.AllowsUser(b.Channel, s.identity.user) || !s.identity.allows(access(eff.Rules, readingHistory), sub, mayRead):
		s.refuse(id, dialect.Unauthorized, "")
		return
	}
	number, ok := s.call(id, onStream(func(h *Stream) {
		switch {
		case h == nil:
			s.refuse(id, dialect.Unavailable, "the history of the channel can't be read now, try again")
		case b.Since != nil && b.Since.Epoch != "" && b.Since.Epoch != h.Epoch:
			s.refuse(id, dialect.LostPlace, "")
		default:
			s.reply(id, pageOf(h, b))
		}
	}))
	if ok {
		s.host.History(number, &HistoryQuestion{Channel: b.Channel, Keep: resume.Keep{Size: eff.History.Size, TTL: eff.History.TTL}})
	}
}

// historyMax is how many publications one answer has at most.
const historyMax = 300

// pageOf is what is asked of a stream: from since on, or from its beginning;
// in reverse from since back, or from its end.
func pageOf(h *Stream, b *codec.HistoryRequest) *codec.HistoryResult {
	r := &codec.HistoryResult{Epoch: h.Epoch, Offset: uint64(h.Top)}
	limit := historyMax
	if b.Limit >= 0 {
		limit = int(min(b.Limit, historyMax))
	}
	entries := h.Entries
	if b.Reverse {
		entries = slices.Clone(entries)
		slices.Reverse(entries)
	}
	for _, e := range entries {
		if len(r.Publications) >= limit {
			break
		}
		if b.Since != nil {
			since := message.Position(b.Since.Offset)
			if !b.Reverse && e.Position <= since || b.Reverse && e.Position >= since {
				continue
			}
		}
		r.Publications = append(r.Publications, codec.Publication{Position: e.Position, Publication: e.Publication})
	}
	return r
}

// rpc calls a method of the application.
func (s *Session) rpc(id uint32, b *codec.RPCRequest) {
	switch c := &s.app.Centrifugo; {
	case len(c.RPC) == 0:
		s.refuse(id, dialect.NotAvailable, "the app answers no calls: see centrifugo.rpc")
	case c.HookOf(b.Method) == "":
		s.refuse(id, dialect.NoMethod, "")
	default:
		req := &authz.RPC{Client: s.about(), Method: b.Method, Data: kept(b.Data)}
		s.decide(req, id, func(d *authz.Decision, _ int64) {
			if !d.Allow {
				s.denied(id, d)
				return
			}
			s.reply(id, &codec.RPCResult{Data: d.Reply})
		})
	}
}

// refresh brings a new token for the connection.
func (s *Session) refresh(id uint32, b *codec.RefreshRequest) {
	switch {
	case s.identity.refresher == server:
		s.bad("the server refreshes this connection")
	case b.Token == "":
		s.bad("refresh needs a token")
	default:
		req := &authz.Refresh{Client: s.about(), Token: b.Token}
		s.decide(req, id, func(d *authz.Decision, now int64) { s.refreshed(id, d, now) })
	}
}

func (s *Session) refreshed(id uint32, d *authz.Decision, now int64) {
	creds := d.Credentials
	if creds == nil {
		creds = &authz.Credentials{}
	}
	switch {
	case !d.Allow && d.Verdict == nil && reasonOf(d) == dialect.BadToken:
		s.Shut(dialect.BadToken)
	case !d.Allow:
		s.denied(id, d)
	case creds.Expired || s.past(creds.ExpireAt):
		s.refuse(id, dialect.TokenExpired, "")
	case creds.User != s.identity.user:
		s.Shut(dialect.BadToken)
	case !s.subs.sameSubs(creds):
		s.Shut(dialect.LostPlace) // the client gets them by connecting again
	default:
		s.identity.info, s.identity.meta = creds.Info, creds.Meta
		s.live(creds, now)
		r := &codec.RefreshResult{Client: s.host.SocketID(), Version: Version, Expires: creds.ExpireAt != 0}
		if r.Expires {
			r.TTL = s.ttl(creds.ExpireAt)
		}
		s.reply(id, r)
	}
}

// sameSubs says whether new credentials give no other subscriptions than the
// client has; credentials that give none leave them.
func (t *subscriptions) sameSubs(creds *authz.Credentials) bool {
	for name := range creds.Subs {
		if i := t.Find(name); i < 0 || !t.Rows[i].has(byServer) {
			return false
		}
	}
	return true
}

// refreshedByServer goes on with the answer to a refresh that nobody asked for
// but the server.
func (s *Session) refreshedByServer(d *authz.Decision, now int64) {
	creds := d.Credentials
	switch {
	case d.Verdict != nil && d.Verdict.Disconnect:
		s.denied(0, d)
	case !d.Allow: // asked again later
	case creds == nil || creds.Expired || s.past(creds.ExpireAt):
		s.Shut(dialect.Expired)
	default:
		if creds.Info != "" {
			s.identity.info = creds.Info
		}
		if creds.Meta != "" {
			s.identity.meta = creds.Meta
		}
		creds.ServerRefresh = true
		s.live(creds, now)
	}
}

// subRefresh brings a new token for a subscription.
func (s *Session) subRefresh(id uint32, b *codec.SubRefreshRequest) {
	switch {
	case b.Channel == "":
		s.bad("sub_refresh needs a channel")
	case b.Type != 0:
		s.refuse(id, dialect.NotAvailable, "shared poll subscriptions are not offered")
	case s.subs.liveOn(b.Channel) == nil:
		s.refuse(id, dialect.NotSubscribed, "")
	case b.Token == "":
		s.bad("sub_refresh needs a token")
	default:
		name := b.Channel
		req := &authz.SubRefresh{Client: s.about(), Channel: name, Token: b.Token}
		s.decide(req, id, func(d *authz.Decision, now int64) { s.subRefreshed(id, name, d, now) })
	}
}

func (s *Session) subRefreshed(id uint32, name string, d *authz.Decision, now int64) {
	sub := s.subs.liveOn(name)
	grant := d.Grant
	if grant == nil {
		grant = &authz.Grant{}
	}
	switch {
	case sub == nil:
		s.refuse(id, dialect.NotSubscribed, "")
	case !d.Allow && d.Verdict == nil && reasonOf(d) == dialect.BadToken:
		s.Shut(dialect.BadToken)
	case !d.Allow:
		s.denied(id, d)
	case s.past(grant.ExpireAt):
		s.refuse(id, dialect.TokenExpired, "")
	default:
		s.extend(sub, grant, now)
		sub.set(refreshes, false)
		r := &codec.SubRefreshResult{Expires: grant.ExpireAt != 0}
		if r.Expires {
			r.TTL = s.ttl(grant.ExpireAt)
		}
		s.reply(id, r)
	}
}

func (s *Session) extend(sub *subscription, g *authz.Grant, now int64) {
	if sub.expireAt = s.after(g.ExpireAt, now); sub.expireAt > 0 {
		s.wake(sub.expireAt)
	}
	if g.Info != "" {
		sub.info = g.Info
	}
}

// refreshSubscription asks whether a subscription may go on that came about
// without a token.
func (s *Session) refreshSubscription(name string, now int64) {
	s.due = now + callTimeout
	s.decide(&authz.SubRefresh{Client: s.about(), Channel: name}, 0, func(d *authz.Decision, now int64) {
		i := s.subs.Find(name)
		switch {
		case i < 0 || s.subs.Rows[i].state != session.Live || !d.Allow && d.Temporary:
		case !d.Allow || d.Grant == nil || s.past(d.Grant.ExpireAt):
			s.end(i, codec.UnsubscribedExpired)
		default:
			s.extend(&s.subs.Rows[i], d.Grant, now)
		}
	})
}
