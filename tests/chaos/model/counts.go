package model

import (
	"fmt"
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/tests/chaos/record"
)

// Bounds of what is said about who is where while nothing is broken (P5), in
// microseconds of the record.
const (
	// countsLag: what the API says was true at some time within a second before
	// the question.
	countsLag = 1_000_000
	// settledFor is how long the API has to be right before it has to stay so:
	// longer than countsLag, in which it may be right by chance.
	settledFor = 2_000_000
	// eventsLag: member events come within three seconds of what they tell.
	eventsLag = 3_000_000
)

// quiet is a time in which nothing is broken.
type quiet struct {
	from, to int64 // to the next fault, or the end of the record
	stalled  bool  // it ended because the machine stood still
	rounds   []*round
}

// round is all nodes asked for all channels once.
type round struct {
	number  int
	answers []record.Entry
}

// readQuiet sorts what was asked in quiet times.
func (h *history) readQuiet(e *record.Entry) {
	last := len(h.quiets) - 1
	switch {
	case e.Kind == record.Mended:
		h.quiets = append(h.quiets, &quiet{from: e.Microseconds, to: h.over})
	case last < 0 || h.quiets[last].to != h.over: // during faults, which nobody judges
	case e.Kind == record.Stalled: // it is quiet anew
		h.quiets[last].to, h.quiets[last].stalled = e.Microseconds, true
		h.quiets = append(h.quiets, &quiet{from: e.Microseconds, to: h.over})
	case e.Kind == record.Fault:
		h.quiets[last].to = e.Microseconds
	default:
		q := h.quiets[last]
		if n := len(q.rounds); n == 0 || q.rounds[n-1].number != e.Round {
			q.rounds = append(q.rounds, &round{number: e.Round})
		}
		r := q.rounds[len(q.rounds)-1]
		r.answers = append(r.answers, *e)
	}
}

// checkCounts wants the API to become right in each quiet time, and to stay
// so. How long the asker goes on asking is the bound.
func (h *history) checkCounts() {
	for _, q := range h.quiets {
		if q.stalled || len(q.rounds) == 0 {
			continue // who knows since when; or it stood still after the last question
		}
		from, wrong := h.settle(q)
		for _, what := range wrong {
			h.violate(Counts, "%s", what)
		}
		if from < 0 {
			continue
		}
		h.report.Slowest = max(h.report.Slowest, float64(from-q.from)/1e6)
		h.checkCauses(q, from)
	}
}

// settle says since when the API was right in a quiet time, and what it said
// wrong after it had been right for settledFor: before that it may be right by
// chance. If it never was for so long that is -1, and what it said wrong last.
func (h *history) settle(q *quiet) (from int64, wrong []string) {
	from = -1
	settled := false
	for _, r := range q.rounds {
		said, since := h.judge(r), r.answers[0].Since
		switch {
		case settled:
			wrong = append(wrong, said...)
		case len(said) > 0:
			from, wrong = -1, said
		case from < 0:
			from = since
		case since-from >= settledFor:
			settled, wrong = true, nil
		}
	}
	if settled {
		return from, wrong
	}
	return -1, append(wrong, fmt.Sprintf("after %.3f s nothing was broken, and the API was not right for %d s in a row before the next fault",
		float64(q.from)/1e6, settledFor/1_000_000))
}

// Settled says whether the API was right when it was asked last, and whether
// it has been so since everything was mended for long enough.
func Settled(entries []record.Entry, channels Channels) (right, settled bool) {
	h := read(entries, channels)
	if len(h.quiets) == 0 {
		return false, false
	}
	q := h.quiets[len(h.quiets)-1]
	if len(q.rounds) == 0 {
		return false, false
	}
	from, wrong := h.settle(q)
	return len(h.judge(q.rounds[len(q.rounds)-1])) == 0, from >= 0 && len(wrong) == 0
}

// judge compares a round with who was connected at some time within countsLag
// before it.
func (h *history) judge(r *round) (wrong []string) {
	for i := range r.answers {
		e := &r.answers[i]
		for _, what := range h.judgeAnswer(e) {
			wrong = append(wrong, fmt.Sprintf("%s, asked for %s after %.3f s, %s", e.Text, e.Channel, float64(e.Since)/1e6, what))
		}
	}
	return wrong
}

func (h *history) judgeAnswer(e *record.Entry) (wrong []string) {
	if e.Why != "" {
		return []string{"did not answer: " + e.Why}
	}
	least, most, surely, perhaps := 0, 0, map[string]bool{}, map[string]bool{}
	for _, s := range h.sessions {
		t := s.topics[e.Channel]
		if a := s.asked[e.Channel]; a != nil && a.at <= e.Microseconds && s.until >= e.Since-countsLag {
			most++
			perhaps[a.user] = true
		}
		if t != nil && t.since <= e.Since-countsLag && s.until >= e.Microseconds {
			least++
			surely[t.user] = true
		}
	}
	if e.Count < least || e.Count > most {
		wrong = append(wrong, fmt.Sprintf("said %d subscriptions, there were %d to %d", e.Count, least, most))
	}
	if !h.channels.Presence(e.Channel) {
		return wrong
	}
	if e.UserCount < len(surely) || e.UserCount > len(perhaps) {
		wrong = append(wrong, fmt.Sprintf("said %d users, there were %d to %d", e.UserCount, len(surely), len(perhaps)))
	}
	for _, u := range e.Users {
		if !perhaps[u] {
			wrong = append(wrong, fmt.Sprintf("named %s, who was not there", u))
		}
	}
	for _, u := range slices.Sorted(maps.Keys(surely)) {
		if !slices.Contains(e.Users, u) {
			wrong = append(wrong, fmt.Sprintf("did not name %s, who was there", u))
		}
	}
	return wrong
}

// checkCauses wants each member event of a quiet time to tell of a connection
// that came or went a moment ago: events balance, for each user.
func (h *history) checkCauses(q *quiet, from int64) {
	for _, s := range h.sessions {
		for channel, t := range s.topics {
			for _, e := range t.members {
				if e.at < from+eventsLag || e.at > q.to || h.caused(channel, e) {
					continue
				}
				what := "removed from"
				if e.added {
					what = "added to"
				}
				h.violate(PresenceEvents, "%s was told after %.3f s that %s was %s %s, and nothing of theirs had changed there for %d s",
					s, float64(e.at)/1e6, e.user, what, channel, eventsLag/1_000_000)
			}
		}
	}
}

// caused says whether a connection of the user came, or went, a moment before.
func (h *history) caused(channel string, e memberEvent) bool {
	for _, s := range h.sessions {
		a := s.asked[channel]
		if a == nil || a.user != e.user {
			continue
		}
		at := s.until
		if e.added {
			at = a.at
		}
		if at <= e.at && at >= e.at-eventsLag {
			return true
		}
	}
	return false
}

// checkKept wants connections to last through everything but what happens to
// gateways.
func (h *history) checkKept() {
	for _, s := range h.sessions {
		if s.open || s.left || h.hardAt(s.until) {
			continue
		}
		h.violate(Works, "%s lost its connection after %.3f s, when nothing had happened to a gateway (%s)", s, float64(s.until)/1e6, s.why)
	}
}

// hardAt says whether connections may have ended then.
func (h *history) hardAt(at int64) bool {
	return slices.ContainsFunc(h.hard, func(span [2]int64) bool { return span[0] <= at && at <= span[1] })
}

// readHard keeps when connections may end: from a hard fault until everything
// is mended.
func (h *history) readHard(e *record.Entry) {
	last := len(h.hard) - 1
	open := last >= 0 && h.hard[last][1] == h.over
	switch {
	case e.Kind == record.Mended && open:
		h.hard[last][1] = e.Microseconds
	case e.Kind == record.Fault && e.Hard && !open:
		h.hard = append(h.hard, [2]int64{e.Microseconds, h.over})
	}
}
