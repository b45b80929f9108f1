package centrifugo

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// A subscription's way:
//
//	subscribe -> [Cluster.Decide -> Decided] -> Attach -> Attached -> live
//
// Unsubscribe forgets it at any point. Those of the server begin at Attach.

// recoveredMax is how many publications a recovery gives: a client that has
// missed more is told that it has lost its place (client protocol, 1.7).
const recoveredMax = 300

func (c command) subscribe(b *codec.SubscribeRequest, now int64) {
	if b.Channel == "" {
		c.s.bad("subscribe needs a channel")
		return
	}
	eff := c.s.app.Effective(b.Channel)
	if why, text := c.mayNotAsk(b, &eff); why != dialect.None {
		c.refuse(why, text)
		return
	}
	sub := subscription{name: b.Channel, id: c.id, deadline: c.s.due}
	c.s.wake(sub.deadline)
	if b.Token == "" && !eff.MustAsk() {
		c.s.subs.Add(sub)
		c.s.attach(len(c.s.subs.Rows)-1, b, &authz.Grant{}, false, now)
		return
	}
	sub.state = session.Authorizing
	sub.set(refreshes, b.Token == "")
	c.s.subs.Add(sub)
	req := &authz.Subscribe{App: c.s.app.ID, SocketID: c.s.host.SocketID(), Channel: b.Channel, Token: b.Token, Data: kept(b.Data)}
	about := c.s.about()
	about.Claims = c.s.identity.behind().claims
	req.Client = &about
	ask := *b
	ask.Data = nil
	if !c.s.decide(req, 0, func(d *authz.Decision, now int64) { c.authorized(&ask, d, now) }) {
		c.s.drop(c.s.subs.Find(b.Channel), dialect.RateLimit, tooManyCalls, now)
	}
}

// mayNotAsk says why a subscription is refused without asking anybody.
func (c command) mayNotAsk(b *codec.SubscribeRequest, eff *app.Effective) (dialect.Reason, string) {
	if err := channel.Validate(b.Channel); err != nil {
		return dialect.BadChannel, err.Error()
	}
	if text := wrongFilter(b.Filter, eff); text != "" {
		return dialect.BadData, text
	}
	switch n := c.s.app.Limits.Subscriptions; {
	case b.Type != 0:
		return dialect.NotAvailable, "map and shared poll subscriptions are not offered"
	case c.s.subs.Find(b.Channel) >= 0:
		return dialect.AlreadyDone, ""
	case n > 0 && len(c.s.subs.Rows) >= n:
		return dialect.Subscriptions, fmt.Sprintf("the connection has %d subscriptions, the limit is %d", len(c.s.subs.Rows), n)
	case c.s.app.UnknownNamespace(b.Channel, *eff):
		return dialect.NoChannel, ""
	case strings.HasPrefix(b.Channel, channel.OnlinePrefix):
		return dialect.Unauthorized, ""
	}
	return dialect.None, ""
}

// wrongFilter says why a subscription can't have a filter, "" if it can.
func wrongFilter(f *tagfilter.Node, eff *app.Effective) string {
	if f == nil {
		return ""
	}
	if _, err := tagfilter.New(f); err != nil {
		return "tf: " + err.Error()
	}
	if eff.Rules == nil || !eff.Rules.TagsFilter {
		return "the channel takes no filters: see tags_filter of its policy"
	}
	return ""
}

// authorized goes on with the decision about a subscription, unless it was
// forgotten.
func (c command) authorized(b *codec.SubscribeRequest, d *authz.Decision, now int64) {
	i := c.s.subs.Find(b.Channel)
	if i < 0 || c.s.subs.Rows[i].id != c.id || c.s.subs.Rows[i].state != session.Authorizing {
		return
	}
	grant := d.Grant
	if grant == nil {
		grant = &authz.Grant{}
	}
	switch {
	case !d.Allow:
		c.s.remove(i)
		switch {
		case d.Verdict == nil && d.Reason == authz.ForeignToken: // a client that was given it is not to be trusted
			c.s.Shut(dialect.BadToken)
		case d.Verdict == nil && d.Reason == authz.BadToken:
			c.refuse(dialect.Unauthorized, d.Message)
		default:
			c.denied(d)
		}
	case past(c.s.host, grant.ExpireAt):
		c.s.remove(i)
		c.refuse(dialect.TokenExpired, "")
	default:
		c.s.attach(i, b, grant, false, now)
	}
}

// attach asks for what subscription i needs. wait keeps back what is published
// until the client has been told that it is connected.
func (s *Session) attach(i int, b *codec.SubscribeRequest, g *authz.Grant, wait bool, now int64) {
	sub := &s.subs.Rows[i]
	eff := s.app.Effective(sub.name)
	sub.state, sub.info = session.Attaching, g.Info
	sub.expireAt = after(s.host, g.ExpireAt, now)
	sub.set(mayPublish, g.Publish)
	sub.set(mayRead, g.History)
	sub.set(maySee, g.ReadPresence)
	sub.set(recoverable, eff.Recovers())
	sub.set(cached, eff.Cache)
	sub.set(present, chosen(g.Presence, eff.Presence || eff.Rules != nil && eff.Rules.Presence))
	told := chosen(g.JoinLeave, eff.Presence || eff.Rules != nil && eff.Rules.JoinLeave)
	sub.set(joinLeave, told && (b.JoinLeave || chosen(g.ForceJoinLeave, false)))
	sub.pending = &pending{
		data: g.Data, expireUnix: g.ExpireAt, recovering: b.Recover, unrecovered: b.Flag&codec.FlagUnrecoverable != 0,
	}
	if b.Recover {
		sub.pending.since = resume.Place{Epoch: b.Epoch, Position: message.Position(b.Offset)}
	}
	how := session.Attach{Cache: sub.has(cached), Inline: true, Wait: wait, View: viewOf(sub, b, &eff)}
	how.Filter = sub.pending.filter
	if sub.has(present) {
		if how.Member = s.member(sub, &eff); how.Member == nil {
			s.drop(i, dialect.Unauthorized, "only users may be members of "+sub.name, now)
			return
		}
	}
	if sub.has(cached) && eff.CacheEmptyHook() != "" {
		how.Fill = fillTime(sub.deadline - now)
	}
	if sub.has(recoverable) {
		how.Resume, how.Keep = wish(b), resume.Keep{Size: eff.History.Size, TTL: eff.History.TTL}
	}
	s.host.Attach(sub.name, how)
}

// fillTime is how long an application gets to publish a last value for a
// subscription that has to be made within so many nanoseconds: the readings
// before and after take some time, too. A channel's subscribers wait together if
// they wait equally long.
func fillTime(left int64) time.Duration {
	switch {
	case left >= 3*second:
		return 2 * time.Second
	case left >= 3*second/2:
		return time.Second / 2
	}
	return 0
}

// viewOf chooses how a subscription is told of publications: by differences where
// the client asks for them and gets all publications that they are between.
func viewOf(sub *subscription, b *codec.SubscribeRequest, eff *app.Effective) uint8 {
	if b.Filter != nil {
		sub.pending.filter, _ = tagfilter.New(b.Filter) // it was checked before
	}
	sub.pending.delta = b.Delta == codec.Fossil && b.Filter == nil && eff.Rules != nil && eff.Rules.Delta
	switch {
	case sub.pending.delta && sub.has(joinLeave):
		return codec.ViewDeltaMembers
	case sub.pending.delta:
		return codec.ViewDelta
	case sub.has(joinLeave):
		return codec.ViewMembers
	}
	return codec.ViewPlain
}

func chosen(override *bool, policy bool) bool {
	if override != nil {
		return *override
	}
	return policy
}

// wish is what a client wants of a channel's past. An empty epoch stands for
// any (client protocol, 1.7).
func wish(b *codec.SubscribeRequest) *resume.Wish {
	if !b.Recover {
		return &resume.Wish{}
	}
	since := resume.Place{Position: message.Position(b.Offset), Epoch: b.Epoch}
	return &resume.Wish{Since: since, AnyEpoch: b.Epoch == "", Most: recoveredMax}
}

// member is the connection as a member of a channel: its user, on channels
// that have users as Pusher's do, else itself. It is nil if that is nobody.
func (s *Session) member(sub *subscription, eff *app.Effective) *presence.Member {
	if !eff.Presence {
		id := s.host.SocketID()
		return &presence.Member{ID: id, RawID: quoted(id), Info: string(s.info(sub.info))}
	}
	user := s.identity.user
	if user == "" {
		return nil
	}
	info := sub.info
	if info == "" {
		info = s.identity.info
	}
	return &presence.Member{ID: user, RawID: quoted(user), Info: info}
}

func quoted(s string) string { return string(jsonx.AppendString(nil, s)) }

// Attached is the answer to Channels.Attach.
func (s *Session) Attached(r session.Attached, now int64) {
	i := s.subs.Find(r.Channel)
	if s.phase == closed || i < 0 || s.subs.Rows[i].state != session.Attaching {
		return
	}
	if r.Failed != dialect.None {
		s.drop(i, r.Failed, r.Message, now)
		return
	}
	sub := &s.subs.Rows[i]
	made := sub.pending
	result := s.result(sub, &r)
	if made.recovering && !result.Recovered && made.unrecovered && sub.id != 0 {
		s.drop(i, dialect.LostPlace, "", now)
		return
	}
	id := sub.id
	sub.id, sub.deadline, sub.pending, sub.state = 0, 0, nil, session.Live
	if sub.expireAt > 0 {
		s.wake(sub.expireAt)
	}
	switch {
	case sub.has(byServer) && s.phase == connecting:
		s.connect.made(sub.name, result, now)
	case sub.has(byServer):
		s.push(sub.name, &codec.Subscribe{
			Recoverable: result.Recoverable, Positioned: result.Positioned, Epoch: result.Epoch, Offset: result.Offset, Data: result.Data,
		})
		s.missed(sub.name, result.Publications)
		s.welcome(sub)
	default:
		s.reply(id, result)
		s.welcome(sub)
	}
}

// result is what the client is told of a subscription.
func (s *Session) result(sub *subscription, r *session.Attached) *codec.SubscribeResult {
	made := sub.pending
	result := &codec.SubscribeResult{Data: made.data, WasRecovering: made.recovering, HasDelta: made.delta}
	if made.expireUnix != 0 && !sub.has(refreshes) && !sub.has(byServer) {
		result.Expires, result.TTL = true, ttl(s.host, made.expireUnix)
	}
	if a := r.Resume; a != nil && a.Kept {
		result.Recoverable, result.Positioned = true, true
		result.Epoch, result.Offset = a.Place.Epoch, uint64(a.Place.Position)
		if a.Recovered {
			result.Recovered = true
			for _, e := range a.Entries {
				made.add(result, e.Position, e.Publication)
			}
			if len(result.Publications) > 0 || a.Follows { // the client advances through them
				result.Offset = min(result.Offset, uint64(a.Since.Position))
			}
		}
	}
	if sub.has(cached) {
		sub.addCached(result, r)
	}
	return result
}

// addCached gives the channel's last value, unless the client has it. Where
// that is all there is, it is what recovery gives.
func (s *subscription) addCached(result *codec.SubscribeResult, r *session.Attached) {
	if !result.Recoverable {
		result.Recoverable, result.Epoch, result.Offset = true, r.CachedAt.Epoch, uint64(r.CachedAt.Position)
		result.Recovered = result.WasRecovering && r.Cached != nil
	}
	if r.Cached != nil && r.CachedAt != s.pending.since {
		s.pending.add(result, r.CachedAt.Position, r.Cached)
	}
}

// add adds a publication of the past to what the client is told, if it wants
// it.
func (p *pending) add(result *codec.SubscribeResult, pos message.Position, pub *message.Publication) {
	if p.filter != nil && !p.filter.Match(tagfilter.Tags(pub)) {
		return
	}
	result.Publications = append(result.Publications, codec.Publication{Position: pos, Publication: pub, Text: p.delta})
}

// welcome tells a client that wants to know who comes that it came itself:
// what others are told of it was said before it was there.
func (s *Session) welcome(sub *subscription) {
	if sub.has(joinLeave) && sub.has(present) && !codec.UsersAreMembers(sub.name) {
		s.push(sub.name, &codec.Join{Info: s.info(sub.info)})
	}
}

// drop ends a subscription that is not live, and tells the client why.
func (s *Session) drop(i int, why dialect.Reason, text string, now int64) {
	sub := s.subs.Rows[i]
	s.remove(i)
	switch {
	case !sub.has(byServer):
		s.refuse(sub.id, why, text)
	case s.phase == connecting:
		s.connect.fail(why, errorOf(why, text))
	default:
		s.host.Refused(why)
	}
}

// end ends a live subscription on the server's behalf.
func (s *Session) end(i int, code uint32) {
	name, reason := s.subs.Rows[i].name, codec.UnsubscribeReason(code)
	s.remove(i)
	s.push(name, &codec.Unsubscribe{Code: code, Reason: reason})
	s.host.Unsubscribed(name, code, reason)
}

// unsubscribe is never refused. A subscription that is being made is answered,
// too.
func (c command) unsubscribe(name string) {
	if name == "" {
		c.s.bad("unsubscribe needs a channel")
		return
	}
	if i := c.s.subs.Find(name); i >= 0 {
		waits, live := c.s.subs.Rows[i].id, c.s.subs.Rows[i].state == session.Live
		c.s.remove(i)
		if waits != 0 {
			c.s.refuse(waits, dialect.Unavailable, "unsubscribed meanwhile")
		}
		if live {
			c.s.host.Unsubscribed(name, 0, "")
		}
	}
	c.reply(&codec.UnsubscribeResult{})
}
