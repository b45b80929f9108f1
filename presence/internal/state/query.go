package state

import (
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// entryBytes is about what one channel of a list takes in JSON besides its
// name, which escapes make twice as long at most.
const entryBytes = 48

// memberEntryBytes is the same for a member and its strings.
const memberEntryBytes = 40

// Query answers a question about the shard's channels.
func (s *Shard) Query(q *presence.Query, nowMs int64) presence.Answer {
	a := presence.Answer{Incomplete: s.Waiting(nowMs) || q.Members && s.Incomplete(), Version: s.news.version}
	switch {
	case q.App == "":
		a.Error = "app is missing: a query names its app"
	case q.All:
		a.Channels, a.More = s.list(q)
	case q.Channel != "":
		if r := s.census.rooms[channel.Key{App: q.App, Name: q.Channel}]; r != nil {
			info := describe(r)
			if q.Members {
				info.Members, a.More, a.Error = r.page(q.After, s.cfg.ReplyBytes)
			}
			a.Channels = []presence.ChannelInfo{info}
		}
	case len(q.Online) > 0:
		for _, id := range q.Online {
			if s.census.online[channel.Key{App: q.App, Name: channel.OnlinePrefix + id}] > 0 {
				a.Online = append(a.Online, id)
			}
		}
	default:
		a.Error = "nothing is asked for: set channel, online or all"
	}
	return a
}

// list gives the channels with the query's prefix that fit into one answer,
// sorted by name. Internal channels are listed only when asked for.
func (s *Shard) list(q *presence.Query) (channels []presence.ChannelInfo, more bool) {
	var found []*room
	for key, r := range s.census.rooms {
		if key.App != q.App || key.Name <= q.After || !strings.HasPrefix(key.Name, q.Prefix) ||
			(internal(key) && !q.Hash && !strings.HasPrefix(q.Prefix, "#")) {
			continue
		}
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b *room) int { return compare(a.key.Name, b.key.Name) })
	bytes := 0
	for _, r := range found {
		if bytes += 2*len(r.key.Name) + entryBytes; bytes > s.cfg.ReplyBytes || q.Limit > 0 && len(channels) == q.Limit {
			return channels, true
		}
		channels = append(channels, describe(r))
	}
	return channels, false
}

func describe(r *room) presence.ChannelInfo {
	return presence.ChannelInfo{Name: r.key.Name, Subscriptions: int(r.subscriptions), Users: len(r.members)}
}

// page lists the members that fit into one answer, in order of joining, from
// the one after a member on.
func (r *room) page(after string, bytesMax int) (members []presence.MemberInfo, more bool, problem string) {
	from := 0
	if after != "" {
		i := slices.IndexFunc(r.order, func(m *member) bool { return m.ID == after })
		if i < 0 {
			return nil, false, "the member named in after has left, ask again from the start"
		}
		from = i + 1
	}
	bytes := 0
	for _, m := range r.order[from:] {
		if bytes += 2*m.bytes() + memberEntryBytes; bytes > bytesMax && len(members) > 0 {
			return members, true, ""
		}
		members = append(members, presence.MemberInfo{ID: m.ID, RawID: m.RawID, Info: m.Info})
	}
	return members, false, ""
}
