// Package model says whether the record of a chaos run keeps the promises. It
// is pure: entries in, violations out; what happened, and how it was recorded,
// is not its business.
package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/tests/chaos/record"
)

// Promise is what was broken.
type Promise string

// The promises that are checked.
const (
	// Order (P1): on a durable channel everybody sees the journal's order, which
	// is each publisher's; elsewhere the order of each publisher, of what it
	// publishes with idempotency keys and of what it publishes without.
	Order Promise = "P1 order"
	// Gap (P2): who stays connected misses nothing that the journal has.
	Gap Promise = "P2 gap"
	// Resume (P3): who was told that it goes on from a position gets everything
	// behind that, and nothing else.
	Resume Promise = "P3 resume"
	// Stored (P4): what was acknowledged is in the journal once, with all its
	// repeats; what was not, at most once.
	Stored Promise = "P4 stored"
	// Twice: nobody gets a publication twice, or one that nobody sent.
	Twice Promise = "P2 twice"
	// Presence (P5): at the end rosters are true.
	Presence Promise = "P5 presence"
	// Counts (P5): while nothing is broken, counts and lists of the API are
	// those of at most a second ago.
	Counts Promise = "P5 counts"
	// PresenceEvents (P5): member_added and member_removed alternate for each
	// user, beginning with the roster; while nothing is broken each tells of a
	// connection that has just come or gone.
	PresenceEvents Promise = "P5 events"
	// Works (P8): everything works again when the faults are over, without a
	// restart of what survived them; connections end only by what happens to
	// gateways.
	Works Promise = "P8 works"
)

// Violation is one breach of a promise.
type Violation struct {
	Promise Promise
	Text    string
}

func (v Violation) String() string { return string(v.Promise) + ": " + v.Text }

// Report is what Check found.
type Report struct {
	Violations []Violation
	// What the run consisted of.
	Publications, Acknowledged, Retried, Unknown, Stored int
	Sessions, Lost, Resumed, Events                      int
	MemberEvents, Faults, Questions, Stalls              int
	// Slowest is how many seconds after everything was mended the API was right,
	// at most.
	Slowest float64
}

// Of gives the violations of these promises.
func (r Report) Of(promises ...Promise) (vs []Violation) {
	for _, v := range r.Violations {
		if slices.Contains(promises, v.Promise) {
			vs = append(vs, v)
		}
	}
	return vs
}

// Except gives the violations of all other promises.
func (r Report) Except(promises ...Promise) (vs []Violation) {
	for _, v := range r.Violations {
		if !slices.Contains(promises, v.Promise) {
			vs = append(vs, v)
		}
	}
	return vs
}

// Summary is a line for people.
func (r Report) Summary() string {
	return fmt.Sprintf("%d faults; %d publications (%d acknowledged, %d of them after failed attempts, %d unknown), %d stored; "+
		"%d connections (%d lost; %d subscriptions resumed), %d events and %d member events received; "+
		"the API was asked %d times and right %.1f s after a round at the latest; "+
		"the machine stood still %d times; %d violations",
		r.Faults, r.Publications, r.Acknowledged, r.Retried, r.Unknown, r.Stored,
		r.Sessions, r.Lost, r.Resumed, r.Events, r.MemberEvents, r.Questions, r.Slowest, r.Stalls, len(r.Violations))
}

// Channels says of a channel name what it is.
type Channels struct {
	// Durable says whether the journal has what is published there.
	Durable func(channel string) bool
	// Presence says whether it has members.
	Presence func(channel string) bool
}

// Check reads a whole record.
func Check(entries []record.Entry, channels Channels) Report {
	h := read(entries, channels)
	h.checkJournal()
	for _, s := range h.sessions {
		h.checkSession(s)
	}
	h.checkRosters()
	h.checkCounts()
	h.checkKept()
	h.checkFinal()
	h.report.Faults = count(entries, record.Fault)
	return h.report
}

func count(entries []record.Entry, k record.Kind) (n int) {
	for i := range entries {
		if entries[i].Kind == k {
			n++
		}
	}
	return n
}

// publication is what is known of one.
type publication struct {
	actor, channel, id string
	at                 int // entry of its publishing
	acknowledged       int // entry, 0 while it is not
	keyed              bool
	before             *publication // of the same publisher in the same lane
	index              int          // in the journal of its channel, -1 if it is not there
	position           uint64       // in the journal
}

// session is one connection.
type session struct {
	number  int
	actor   string
	open    bool
	left    bool   // it was closed on purpose
	until   int64  // microseconds: its end, or the end of the record
	why     string // it ended
	asked   map[string]*ask
	topics  map[string]*topic
	strange []string // events without a subscription, and the like
}

// ask is what a session asked for, whether it got it or not.
type ask struct {
	at   int64 // microseconds
	user string
}

// topic is a session's subscription to one channel.
type topic struct {
	channel string
	at      int   // entry of the success
	since   int64 // microseconds
	user    string
	resumed bool   // it was promised everything
	from    uint64 // behind this position
	roster  map[string]bool
	seen    []string      // ids of events
	members []memberEvent // in the order in which they came
}

type memberEvent struct {
	added bool
	user  string
	at    int64 // microseconds since the start of the run
}

// history is the record, sorted by what it is about.
type history struct {
	channels     Channels
	report       Report
	publications map[string]*publication
	journal      map[string][]*publication // by channel
	sessions     []*session
	rosters      []record.Entry
	finals       []string
	gone         map[string]bool // actors that need not be there at the end
	quiets       []*quiet
	hard         [][2]int64 // from, to
	over         int64      // microseconds: later than the last entry
}

func (h *history) violate(p Promise, format string, args ...any) {
	h.report.Violations = append(h.report.Violations, Violation{p, fmt.Sprintf(format, args...)})
}

// read sorts the record.
func read(entries []record.Entry, channels Channels) *history {
	h := &history{channels: channels, publications: map[string]*publication{}, journal: map[string][]*publication{}, gone: map[string]bool{}}
	last := map[string]*publication{} // by publisher and channel
	bySession := map[int]*session{}
	for i := range entries { // the journal's have no time, the last ones are not the latest
		h.over = max(h.over, entries[i].Microseconds+1)
	}
	for i := range entries {
		e := &entries[i]
		switch e.Kind {
		case record.Publish, record.Acknowledged, record.Unknown, record.Refused:
			h.readPublishing(i, e, last)
		case record.Connected, record.Asked, record.Subscribed, record.Event, record.Added, record.Removed, record.Closed:
			h.readSession(i, e, bySession)
		case record.Journal:
			h.readJournal(e)
		case record.Fault, record.Mended:
			h.readQuiet(e)
			h.readHard(e)
		case record.Stalled:
			h.readQuiet(e)
			h.report.Stalls++
		case record.Counts:
			h.readQuiet(e)
			h.report.Questions++
		case record.Roster:
			h.rosters = append(h.rosters, *e)
		case record.Final:
			h.finals = append(h.finals, e.ID)
		case record.Gone:
			h.gone[e.Actor] = true
		case record.Died:
			h.violate(Works, "%s ended by itself", e.Text)
		}
	}
	return h
}

func (h *history) readPublishing(i int, e *record.Entry, last map[string]*publication) {
	if e.Kind == record.Publish {
		lane := e.Actor + " " + e.Channel
		if e.Keyed && !h.channels.Durable(e.Channel) {
			lane += " keyed" // goes through the journal, for its key; the others do not wait for it
		}
		p := &publication{actor: e.Actor, channel: e.Channel, id: e.ID, at: i, keyed: e.Keyed, before: last[lane], index: -1}
		last[lane], h.publications[e.ID] = p, p
		h.report.Publications++
		return
	}
	p := h.publications[e.ID]
	if p == nil {
		h.violate(Works, "the record answers %s, which nobody published", e.ID)
		return
	}
	switch e.Kind {
	case record.Acknowledged:
		p.acknowledged = i
		h.report.Acknowledged++
		if e.Attempts > 0 {
			h.report.Retried++
		}
	case record.Unknown:
		h.report.Unknown++
		if p.keyed {
			h.violate(Works, "%s was never acknowledged: %s", e.ID, e.Text)
		}
	case record.Refused:
		h.violate(Works, "%s was refused: %s", e.ID, e.Text)
	}
}

// readJournal takes the journal's publications, which come in its order.
func (h *history) readJournal(e *record.Entry) {
	h.report.Stored++
	p := h.publications[e.ID]
	switch {
	case p == nil:
		h.violate(Stored, "the journal has %s on %s, which nobody published", e.ID, e.Channel)
	case p.channel != e.Channel:
		h.violate(Stored, "the journal has %s on %s, it was published to %s", e.ID, e.Channel, p.channel)
	case p.index >= 0:
		h.violate(Stored, "the journal has %s on %s twice, again at position %d", e.ID, e.Channel, e.Position)
	default:
		p.index, p.position = len(h.journal[e.Channel]), e.Position
		h.journal[e.Channel] = append(h.journal[e.Channel], p)
	}
}

func (h *history) readSession(i int, e *record.Entry, bySession map[int]*session) {
	s := bySession[e.Session]
	if e.Kind == record.Connected {
		s = &session{number: e.Session, actor: e.Actor, open: true, until: h.over, asked: map[string]*ask{}, topics: map[string]*topic{}}
		bySession[e.Session] = s
		h.sessions = append(h.sessions, s)
		h.report.Sessions++
		return
	}
	if s == nil {
		h.violate(Works, "the record has %s of connection %d, which was never made", e.Kind, e.Session)
		return
	}
	if e.Kind == record.Closed {
		s.open, s.left, s.until, s.why = false, e.Left, e.Microseconds, e.Text
		if !e.Left {
			h.report.Lost++
		}
		return
	}
	if e.Kind == record.Asked {
		s.asked[e.Channel] = &ask{at: e.Microseconds, user: e.User}
		return
	}
	if e.Kind == record.Subscribed {
		if s.asked[e.Channel] == nil {
			s.asked[e.Channel] = &ask{at: e.Microseconds, user: e.User}
		}
		t := &topic{channel: e.Channel, at: i, since: e.Microseconds, user: e.User, resumed: e.Resumed, from: e.Position, roster: map[string]bool{}}
		for _, u := range e.Users {
			t.roster[u] = true
		}
		s.topics[e.Channel] = t
		if e.Resumed {
			h.report.Resumed++
		}
		return
	}
	t := s.topics[e.Channel]
	if t == nil {
		s.strange = append(s.strange, fmt.Sprintf("%s %s%s on %s before it was subscribed", e.Kind, e.ID, e.User, e.Channel))
		return
	}
	switch e.Kind {
	case record.Event:
		t.seen = append(t.seen, e.ID)
		h.report.Events++
	case record.Added, record.Removed:
		t.members = append(t.members, memberEvent{e.Kind == record.Added, e.User, e.Microseconds})
		h.report.MemberEvents++
	}
}

// checkSession checks what one connection saw.
func (h *history) checkSession(s *session) {
	for _, what := range s.strange {
		h.violate(Twice, "%s got %s", s, what)
	}
	for _, channel := range slices.Sorted(maps.Keys(s.topics)) {
		t := s.topics[channel]
		h.checkPublishersOrder(s, t)
		if h.channels.Durable(channel) {
			h.checkDurable(s, t)
		}
		if h.channels.Presence(channel) {
			h.checkMembers(s, t)
		}
	}
}

func (s *session) String() string { return fmt.Sprintf("%s (connection %d)", s.actor, s.number) }

// checkFinal wants everybody to be there at the end and to have got what was
// published last.
func (h *history) checkFinal() {
	if len(h.finals) == 0 {
		h.violate(Works, "nothing was published at the end")
	}
	latest := map[string]*session{}
	for _, s := range h.sessions {
		latest[s.actor] = s
	}
	for _, actor := range slices.Sorted(maps.Keys(latest)) {
		s := latest[actor]
		if !s.open {
			if !h.gone[actor] {
				h.violate(Works, "%s is not connected at the end", actor)
			}
			continue
		}
		for _, id := range h.finals {
			p := h.publications[id]
			if p == nil || s.topics[p.channel] == nil {
				continue
			}
			if !slices.Contains(s.topics[p.channel].seen, id) {
				h.violate(Works, "%s did not get %s, the last one on %s", s, id, p.channel)
			}
		}
	}
}

// few writes the first of many.
func few(ids []string) string {
	const most = 5
	if len(ids) <= most {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
}
