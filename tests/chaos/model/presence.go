package model

import (
	"maps"
	"slices"
	"strings"
)

// checkMembers wants the events of each user to alternate, and whoever is
// still connected to know the truth. Who is on a gateway that hung may be told
// that it was taken for gone itself, and that it is there again.
func (h *history) checkMembers(s *session, t *topic) {
	present := maps.Clone(t.roster)
	if t.user != "" && !present[t.user] {
		h.violate(Presence, "%s joined %s as %s and was given a roster without it", s, t.channel, t.user)
	}
	for _, e := range t.members {
		switch {
		case e.added && present[e.user]:
			h.violate(PresenceEvents, "%s was told after %.3f s that %s was added to %s, who was there", s, float64(e.at)/1e6, e.user, t.channel)
		case !e.added && !present[e.user]:
			h.violate(PresenceEvents, "%s was told after %.3f s that %s was removed from %s, who was not there", s, float64(e.at)/1e6, e.user, t.channel)
		}
		if e.added {
			present[e.user] = true
		} else {
			delete(present, e.user)
		}
	}
	if s.open {
		h.compare(s.String()+" knows", t.channel, slices.Collect(maps.Keys(present)))
	}
}

// checkRosters compares what the API says at the end.
func (h *history) checkRosters() {
	for _, e := range h.rosters {
		h.compare(e.Text+" says", e.Channel, e.Users)
	}
}

// members are the users of a channel that have a connection at the end.
func (h *history) members(channel string) []string {
	users := map[string]bool{}
	for _, s := range h.sessions {
		if t := s.topics[channel]; s.open && t != nil && t.user != "" {
			users[t.user] = true
		}
	}
	return slices.Sorted(maps.Keys(users))
}

func (h *history) compare(who, channel string, got []string) {
	want := h.members(channel)
	slices.Sort(got)
	if slices.Equal(got, want) {
		return
	}
	var text []string
	for _, u := range got {
		if !slices.Contains(want, u) {
			text = append(text, "not there: "+u)
		}
	}
	for _, u := range want {
		if !slices.Contains(got, u) {
			text = append(text, "missing: "+u)
		}
	}
	h.violate(Presence, "%s other members of %s than there are (%s)", who, channel, strings.Join(text, ", "))
}
