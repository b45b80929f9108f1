package session

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/authz"
)

// signIn asks whether the connection may act as the user that cmd names. One
// question is asked at a time. A refused sign-in leaves the connection open.
func (s *Session) signIn(cmd *dialect.Command) dialect.Reason {
	switch {
	case s.flags.has(signing):
		return s.refused(dialect.AlreadyDone, "another sign-in of this connection is being decided")
	case cmd.Auth == "":
		return s.refused(dialect.Unauthorized, "sign-in needs auth")
	case cmd.UserData == "":
		return s.refused(dialect.BadData, "sign-in needs user_data")
	}
	s.flags |= signing
	s.userData = cmd.UserData
	s.host.SignIn(&authz.SignIn{
		App: s.app.ID, Key: s.key, SocketID: s.host.SocketID(), Auth: cmd.Auth, UserData: cmd.UserData,
	})
	return dialect.None
}

// SignInDecided is the answer to Host.SignIn.
func (s *Session) SignInDecided(d authz.Decision, _ int64) {
	if s.flags.has(closed) || !s.flags.has(signing) {
		return
	}
	userData := s.userData
	s.flags &^= signing
	s.userData = ""
	switch {
	case !d.Allow:
		s.tell(dialect.Event{Kind: dialect.Error, Reason: reasonOf(&d), Message: d.Message})
	case d.User == nil || d.User.ID == "":
		s.refused(dialect.ServerError, "the sign-in was allowed without a user")
	case s.user != nil && s.user.ID != d.User.ID:
		s.refused(dialect.Unauthorized, "the connection has signed in as another user already: open another connection")
	case s.user != nil:
		s.tell(dialect.Event{Kind: dialect.SignedIn, UserData: userData})
	default:
		s.flags |= vouched
		s.tell(dialect.Event{Kind: dialect.SignedIn, UserData: userData})
		s.become(d.User)
	}
}

// become makes u the connection's user. The session keeps the watchlist until
// Watching has told which of its users are offline.
func (s *Session) become(u *authz.User) {
	user := *u
	watch := s.watchlist(user.Watchlist)
	user.Watchlist = watch
	s.user = &user
	if len(watch) > 0 {
		s.flags |= watchAsked
	}
	s.host.SetUser(&user, watch)
}

// watchlist is the users to watch, each once, cut to the app's limit.
func (s *Session) watchlist(ids []string) []string {
	if !s.app.Watchlist || len(ids) == 0 {
		return nil
	}
	seen := make(map[string]struct{}, len(ids))
	watch := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, dup := seen[id]; !dup && id != "" {
			seen[id] = struct{}{}
			watch = append(watch, id)
		}
	}
	if n := s.app.Limits.WatchlistUsers; n > 0 && len(watch) > n {
		s.refused(dialect.WatchlistLimit, "the watchlist has %d users, the first %d are watched", len(watch), n)
		watch = watch[:n]
	}
	return watch
}

// Watching is the answer to Host.SetUser with users to watch: those of them
// that are online.
func (s *Session) Watching(online []string, _ int64) {
	if s.flags.has(closed) || !s.flags.has(watchAsked) {
		return
	}
	s.flags &^= watchAsked
	on := make(map[string]struct{}, len(online))
	for _, id := range online {
		on[id] = struct{}{}
	}
	ev := dialect.Event{Kind: dialect.Watchlist}
	for _, id := range s.user.Watchlist {
		if _, is := on[id]; is {
			ev.Online = append(ev.Online, id)
		} else {
			ev.Offline = append(ev.Offline, id)
		}
	}
	user := *s.user // the host may still hold the other one
	user.Watchlist = nil
	s.user = &user
	s.tell(ev)
}
