package session

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// fillTime is how long an application gets to publish a last value: some
// client libraries give up on a subscription after a second.
const fillTime = 800 * time.Millisecond

// A subscription's way:
//
//	Subscribe -> [Host.Authorize -> Authorized] -> Host.Attach -> Attached -> live
//
// Unsubscribe forgets it at any point. An answer to an authorization that was
// forgotten finds no subscription with its id; an Attach that was taken back
// by Detach is never answered.

func (s *Session) subscribe(cmd *dialect.Command) dialect.Reason {
	name := cmd.Channel
	if err := s.validChannel(name); err != nil {
		return s.refuseSubscription(name, dialect.BadChannel, err.Error())
	}
	if s.subs.Find(name) >= 0 {
		return s.refused(dialect.AlreadyDone, "Existing subscription to channel %s", name)
	}
	if n := s.app.Limits.Subscriptions; n > 0 && len(s.subs.Rows) >= n {
		return s.refuseSubscription(name, dialect.Subscriptions,
			fmt.Sprintf("the connection has %d subscriptions, the limit is %d: unsubscribe from some first", len(s.subs.Rows), n))
	}
	if cmd.Resume != nil && cmd.Resume.Wrong != "" {
		return s.refuseSubscription(name, dialect.BadResume, cmd.Resume.Wrong)
	}
	eff := s.app.Effective(name)
	sub := subscription{name: name, traits: traitsOf(eff)}
	switch {
	case eff.User: // being signed in as that user is the authorization, whatever policies say
		if s.user == nil || channel.UserOf(name) != s.user.ID {
			return s.refuseSubscription(name, dialect.Unauthorized,
				"only the user that it belongs to, once signed in, may subscribe to "+name)
		}
	case eff.MustAsk():
		return s.authorize(sub, eff, cmd)
	}
	sub.state = Attaching
	s.subs.Add(sub)
	s.attach(&sub, nil, cmd.Resume)
	return dialect.None
}

func (s *Session) validChannel(name string) error {
	if n, ok := s.dialect.(dialect.Namer); ok {
		return n.ValidChannel(name, s.app.Limits.ChannelNameBytes)
	}
	if strings.HasPrefix(name, "#") && !strings.HasPrefix(name, channel.UserPrefix) {
		return fmt.Errorf("channel names that begin with # are reserved, but for %s", channel.UserPrefix)
	}
	return channel.Validate(name)
}

// authorize asks. Without a signature only a hook can say yes to a protected
// channel; to one that is not, but has a condition, anybody may come.
func (s *Session) authorize(sub subscription, eff app.Effective, cmd *dialect.Command) dialect.Reason {
	if hooked := eff.Rules != nil && eff.Rules.SubscribeHook != ""; cmd.Auth == "" && eff.Private && !hooked {
		return s.refuseSubscription(sub.name, dialect.Unauthorized,
			"the channel "+sub.name+" needs authorization: subscribe with auth")
	}
	s.lastID++
	sub.id, sub.state = s.lastID, Authorizing
	s.subs.Add(sub)
	s.host.Authorize(sub.id, &authz.Subscribe{
		App: s.app.ID, Key: s.key, SocketID: s.host.SocketID(), Channel: sub.name,
		Auth: cmd.Auth, ChannelData: cmd.ChannelData, User: s.user,
	}, cmd.Resume)
	return dialect.None
}

// Authorized is the answer to Host.Authorize.
func (s *Session) Authorized(id uint32, d authz.Decision, wish *resume.Wish, _ int64) {
	i := s.asked(id)
	if s.flags.has(closed) || i < 0 {
		return
	}
	sub := &s.subs.Rows[i]
	if !d.Allow {
		s.denied(i, &d)
		return
	}
	var member *presence.Member
	if sub.traits.has(presenceChannel) {
		if d.User == nil || d.User.ID == "" {
			s.drop(i, dialect.ServerError, "the channel was authorized without a user")
			return
		}
		member = &presence.Member{ID: d.User.ID, RawID: d.User.RawID, Info: d.User.Info}
		rawID := d.User.RawID // on its own, so that the info is not kept
		sub.member = &rawID
	}
	if sub.traits.has(private) { // a condition alone vouches for nobody
		s.flags |= vouched
	}
	sub.state = Attaching
	s.attach(sub, member, wish)
}

// denied ends a pending subscription that was refused, or the connection if
// that is what the application wants. Its words are for clients of protocols
// that have its codes, too.
func (s *Session) denied(i int, d *authz.Decision) {
	switch v := d.Verdict; {
	case v == nil || !v.Disconnect:
		s.drop(i, reasonOf(d), d.Message)
	case v.Code%1000 < 500: // 3000 to 3499, 4000 to 4499: clients come back
		s.shut(dialect.ByApp, "")
	default:
		s.shut(dialect.Terminated, "")
	}
}

func reasonOf(d *authz.Decision) dialect.Reason {
	if d.Temporary {
		return dialect.Unavailable
	}
	return dialect.ReasonOf(d.Reason)
}

func (s *Session) attach(sub *subscription, member *presence.Member, wish *resume.Wish) {
	how := Attach{Member: member, Cache: sub.traits.has(cached), Resume: wish}
	if how.Cache && s.app.Effective(sub.name).CacheEmptyHook() != "" {
		how.Fill = fillTime
	}
	if wish != nil {
		if eff := s.app.Effective(sub.name); eff.Recovers() {
			how.Keep = resume.Keep{Size: eff.History.Size, TTL: eff.History.TTL}
			how.View = s.dialect.PlacedView()
		}
	}
	s.host.Attach(sub.name, how)
}

// Attached is the answer to Host.Attach.
func (s *Session) Attached(r Attached, _ int64) {
	i := s.subs.Find(r.Channel)
	if s.flags.has(closed) || i < 0 || s.subs.Rows[i].state != Attaching {
		return
	}
	if r.Failed != dialect.None {
		s.drop(i, r.Failed, r.Message)
		return
	}
	sub := &s.subs.Rows[i]
	sub.state = Live
	s.tell(dialect.Event{
		Kind: dialect.Subscribed, Channel: sub.name,
		Presence: sub.traits.has(presenceChannel), Members: r.Members, Resume: r.Resume,
	})
	switch {
	case !sub.traits.has(cached), r.Resume.CaughtUp():
	case r.Cached == nil:
		s.tell(dialect.Event{Kind: dialect.CacheMiss, Channel: sub.name})
	default:
		if payload := s.dialect.AppendPublication(nil, r.Cached); len(payload) > 0 {
			s.host.Send(payload)
		}
	}
}

// drop ends a pending subscription and tells the client why.
func (s *Session) drop(i int, why dialect.Reason, message string) {
	name := s.subs.Rows[i].name
	s.subs.Take(i)
	s.refuseSubscription(name, why, message)
}

func (s *Session) refuseSubscription(name string, why dialect.Reason, message string) dialect.Reason {
	s.tell(dialect.Event{Kind: dialect.SubscribeError, Channel: name, Reason: why, Message: message})
	return why
}

func (s *Session) unsubscribe(name string) dialect.Reason {
	i := s.subs.Find(name)
	if i < 0 {
		return s.refused(dialect.NotSubscribed, "No current subscription to channel %s", name)
	}
	sub := s.subs.Rows[i]
	s.subs.Take(i)
	if sub.state != Authorizing {
		s.host.Detach(sub.name)
	}
	if sub.state == Live {
		s.host.Unsubscribed(sub.name, 0, "")
	}
	return dialect.None
}
