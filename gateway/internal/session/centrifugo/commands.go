package centrifugo

import (
	"fmt"
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// command is a command that is being done: its answer has its id, 0 if nobody
// waits for one.
type command struct {
	s  *Session
	id uint32
}

// do does what a command of a connected client asks for.
func (s *Session) do(cmd *codec.Command, now int64) {
	c := command{s, cmd.ID}
	switch b := cmd.Body.(type) {
	case *codec.SubscribeRequest:
		c.subscribe(b, now)
	case *codec.UnsubscribeRequest:
		c.unsubscribe(b.Channel)
	case *codec.PublishRequest:
		c.publish(b)
	case *codec.PresenceRequest:
		c.presence(b.Channel)
	case *codec.PresenceStatsRequest:
		c.presenceStats(b.Channel)
	case *codec.HistoryRequest:
		c.history(b)
	case *codec.RPCRequest:
		c.rpc(b)
	case *codec.RefreshRequest:
		c.refresh(b)
	case *codec.SubRefreshRequest:
		c.subRefresh(b)
	case *codec.SendRequest: // nobody takes them
		s.host.Refused(dialect.NotAvailable)
		s.Shut(dialect.NotAvailable)
	default:
		s.bad("servers take no such command")
	}
}

// reply answers.
func (c command) reply(r codec.Result) { c.s.reply(c.id, r) }

// refuse answers with the protocol's error for why: see voice.refuse.
func (c command) refuse(why dialect.Reason, text string) { c.s.refuse(c.id, why, text) }

// denied tells what the authorization service said no to: in the application's
// own words if it has any.
func (c command) denied(d *authz.Decision) {
	if v := d.Verdict; v != nil && v.Disconnect {
		c.s.host.Refused(dialect.ByApp)
		c.s.shut(dialect.ByApp, int(v.Code), v.Text)
		return
	}
	why, e := refusal(d)
	c.s.refuseWith(c.id, why, e)
}

func refusal(d *authz.Decision) (dialect.Reason, *codec.Error) {
	if v := d.Verdict; v != nil {
		return dialect.ByApp, &codec.Error{Code: v.Code, Message: v.Text, Temporary: v.Temporary}
	}
	why := reasonOf(d)
	return why, errorOf(why, d.Message)
}

// publish publishes what a client may publish: the policy says so, or what
// came with its subscription; a hook or a condition of the policy may say
// more.
func (c command) publish(b *codec.PublishRequest) {
	limits := &c.s.app.Limits
	sub := c.s.subs.liveOn(b.Channel)
	eff := c.s.app.Effective(b.Channel)
	asks := eff.Rules != nil && (eff.Rules.PublishHook != "" || eff.Rules.PublishIf != "")
	switch {
	case b.Channel == "":
		c.s.bad("publish needs a channel")
	case b.Type != 0:
		c.refuse(dialect.NotAvailable, "map channels are not offered")
	case len(b.Data) == 0:
		c.refuse(dialect.BadData, "publish needs data")
	case limits.EventBytes > 0 && len(b.Data) > limits.EventBytes:
		c.refuse(dialect.TooLarge, fmt.Sprintf("the data has %d bytes, at most %d are allowed", len(b.Data), limits.EventBytes))
	case c.s.app.UnknownNamespace(b.Channel, eff):
		c.refuse(dialect.NoChannel, "")
	case eff.Encrypted || !channel.AllowsUser(b.Channel, c.s.identity.user) || !asks && !c.s.identity.allows(access(eff.Rules, publishing), sub, mayPublish):
		c.refuse(dialect.Unauthorized, "")
	case asks:
		req := &authz.Publish{Client: c.s.about(), Channel: b.Channel, Data: kept(b.Data), Subscribed: sub != nil, Granted: sub != nil && sub.has(mayPublish)}
		req.Claims = c.s.identity.behind().claims
		c.s.decide(req, c.id, func(d *authz.Decision, _ int64) { c.mayPublish(req, d) })
	default:
		c.sendOn(b.Channel, kept(b.Data), nil)
	}
}

func (c command) mayPublish(req *authz.Publish, d *authz.Decision) {
	if !d.Allow {
		c.denied(d)
		return
	}
	c.sendOn(req.Channel, req.Data, d.Edited)
}

// sendOn hands a publication to the routers. The client gets it as every other
// subscriber does.
func (c command) sendOn(name string, data []byte, e *authz.Edited) {
	chanInfo := ""
	if sub := c.s.subs.liveOn(name); sub != nil {
		chanInfo = sub.info
	}
	pub := &message.Publication{Kind: message.Event, App: c.s.app.ID, Channel: name, Data: data, Info: c.s.info(chanInfo)}
	if e != nil {
		if len(e.Data) > 0 {
			pub.Data = e.Data
		}
		for _, key := range slices.Sorted(maps.Keys(e.Tags)) {
			pub.Tags = append(pub.Tags, message.Tag{Key: key, Value: e.Tags[key]})
		}
		pub.IdempotencyKey, pub.Transient = e.IdempotencyKey, e.SkipHistory
	}
	number, ok := c.s.call(c.id, onReceipt(func(why dialect.Reason) {
		if why != dialect.None {
			c.refuse(why, "")
			return
		}
		c.reply(&codec.PublishResult{})
	}))
	if ok {
		c.s.host.Publish(number, pub)
	}
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
func (c command) mayNotSee(name string) bool {
	eff := c.s.app.Effective(name)
	sub := c.s.subs.liveOn(name)
	who := access(eff.Rules, readingPresence)
	if eff.Presence && (who == "" || who == app.Nobody) { // as every Pusher client
		who = app.Subscribers
	}
	switch {
	case name == "":
		c.s.bad("presence needs a channel")
	case c.s.app.UnknownNamespace(name, eff):
		c.refuse(dialect.NoChannel, "")
	case !eff.Presence && (eff.Rules == nil || !eff.Rules.Presence):
		c.refuse(dialect.NotAvailable, "the channel has no presence: see presence of its policy")
	case !channel.AllowsUser(name, c.s.identity.user) || !c.s.identity.allows(who, sub, maySee):
		c.refuse(dialect.Unauthorized, "")
	default:
		return false
	}
	return true
}

func (c command) presence(name string) {
	if c.mayNotSee(name) {
		return
	}
	c.askMembers(name, func(m *Members) codec.Result {
		r := &codec.PresenceResult{Clients: make([]codec.Client, len(m.List))}
		for i := range m.List {
			info := codec.MemberInfo(name, m.List[i].RawID, []byte(m.List[i].Info))
			r.Clients[i] = codec.Client{ID: m.List[i].ID, Info: info}
		}
		return r
	})
}

func (c command) presenceStats(name string) {
	if c.mayNotSee(name) {
		return
	}
	c.askMembers(name, func(m *Members) codec.Result {
		users := map[string]struct{}{}
		for i := range m.List {
			info := codec.ParseClientInfo(codec.MemberInfo(name, m.List[i].RawID, []byte(m.List[i].Info)))
			users[info.User] = struct{}{}
		}
		return &codec.PresenceStatsResult{Clients: uint32(len(m.List)), Users: uint32(len(users))}
	})
}

func (c command) askMembers(name string, result func(*Members) codec.Result) {
	number, ok := c.s.call(c.id, onMembers(func(m *Members) {
		if m == nil {
			c.refuse(dialect.Unavailable, "the members of the channel can't be told now, try again")
			return
		}
		c.reply(result(m))
	}))
	if ok {
		c.s.host.Presence(number, name)
	}
}

// history reads what a channel keeps (client protocol, 1.3): without a limit
// the position only.
func (c command) history(b *codec.HistoryRequest) {
	eff := c.s.app.Effective(b.Channel)
	sub := c.s.subs.liveOn(b.Channel)
	switch {
	case b.Channel == "":
		c.s.bad("history needs a channel")
		return
	case c.s.app.UnknownNamespace(b.Channel, eff):
		c.refuse(dialect.NoChannel, "")
		return
	case eff.History.Size == 0:
		c.refuse(dialect.NotAvailable, "the channel keeps no history: see history of its policy")
		return
	case !channel.AllowsUser(b.Channel, c.s.identity.user) || !c.s.identity.allows(access(eff.Rules, readingHistory), sub, mayRead):
		c.refuse(dialect.Unauthorized, "")
		return
	}
	number, ok := c.s.call(c.id, onStream(func(h *Stream) {
		switch {
		case h == nil:
			c.refuse(dialect.Unavailable, "the history of the channel can't be read now, try again")
		case b.Since != nil && b.Since.Epoch != "" && b.Since.Epoch != h.Epoch:
			c.refuse(dialect.LostPlace, "")
		default:
			c.reply(h.result(b.Reverse))
		}
	}))
	if ok {
		c.s.host.History(number, &HistoryQuestion{b.Channel, pageOf(b)})
	}
}

// historyMax is how many publications one answer has at most.
const historyMax = 300

// pageOf is what is asked for: from since on, or from the beginning; in reverse
// from since back, or from the end.
func pageOf(b *codec.HistoryRequest) resume.Page {
	page := resume.Page{Limit: historyMax, Reverse: b.Reverse}
	if b.Limit >= 0 {
		page.Limit = int(min(b.Limit, historyMax))
	}
	switch {
	case b.Since == nil:
	case !b.Reverse:
		page.Since = message.Position(b.Since.Offset)
	case b.Since.Offset == 0: // nothing is before
		page.Limit = 0
	default:
		page.Before = message.Position(b.Since.Offset)
	}
	return page
}

// result tells of a page.
func (h *Stream) result(reverse bool) *codec.HistoryResult {
	r := &codec.HistoryResult{Epoch: h.Epoch, Offset: uint64(h.Top)}
	for _, e := range h.Entries {
		r.Publications = append(r.Publications, codec.Publication{Position: e.Position, Publication: e.Publication})
	}
	if reverse {
		slices.Reverse(r.Publications)
	}
	return r
}

// rpc calls a method of the application.
func (c command) rpc(b *codec.RPCRequest) {
	switch calls := &c.s.app.Centrifugo; {
	case len(calls.RPC) == 0:
		c.refuse(dialect.NotAvailable, "the app answers no calls: see centrifugo.rpc")
	case calls.HookOf(b.Method) == "":
		c.refuse(dialect.NoMethod, "")
	default:
		req := &authz.RPC{Client: c.s.about(), Method: b.Method, Data: kept(b.Data)}
		c.s.decide(req, c.id, func(d *authz.Decision, _ int64) {
			if !d.Allow {
				c.denied(d)
				return
			}
			c.reply(&codec.RPCResult{Data: d.Reply})
		})
	}
}
