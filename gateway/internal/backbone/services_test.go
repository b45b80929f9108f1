package backbone

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

// script is an Asker whose answers are written down.
type script struct {
	t        *testing.T
	answers  []answer
	subjects []string
	bodies   []string
}

type answer struct {
	reply string
	err   error
}

func (s *script) Ask(subj string, data []byte, timeout time.Duration, done func([]byte, error)) {
	if timeout <= 0 || timeout > time.Second {
		s.t.Errorf("timeout %s", timeout)
	}
	s.subjects = append(s.subjects, subj)
	s.bodies = append(s.bodies, string(data))
	a := s.answers[0]
	s.answers = s.answers[1:]
	done([]byte(a.reply), a.err)
}

// sentTo is a Publisher that answers with err.
type sentTo struct{ err error }

func (p sentTo) Publish(_ *message.Publication, done func(publisher.Receipt)) {
	done(publisher.Receipt{Err: p.err})
}

// startedAt is four partitions that were at this position when they were first
// followed.
type startedAt message.Position

func (startedAt) Partitions() int             { return 4 }
func (s startedAt) Last(int) message.Position { return message.Position(s) }
func (startedAt) Empty(int) message.Position  { return 1 }

func TestCachedIsNoOlderThanTheStart(t *testing.T) {
	ask := &script{t: t, answers: []answer{{"{}", nil}}}
	NewServices(startedAt(5), ask, sentTo{}, nil).Cached(history.Request{App: "1", Channel: "cache-a"}, func(*history.Reply) {})
	var req history.Request
	if err := json.Unmarshal([]byte(ask.bodies[0]), &req); err != nil || req.AtLeast != 5 {
		t.Fatalf("asked %+v (%v), want at least 5", req, err)
	}
}

// A partition that had nothing stored has nothing that a router could wait for.
func TestCachedOfAnEmptyPartitionDoesNotWait(t *testing.T) {
	ask := &script{t: t, answers: []answer{{"{}", nil}}}
	NewServices(startedAt(5), ask, sentTo{}, nil).Cached(history.Request{App: "1", Channel: "cache-a", AtLeast: 1}, func(*history.Reply) {})
	var req history.Request
	if err := json.Unmarshal([]byte(ask.bodies[0]), &req); err != nil || req.AtLeast != 0 {
		t.Fatalf("asked %+v (%v), want at least 0", req, err)
	}
}

func TestDecisions(t *testing.T) {
	for name, tc := range map[string]struct {
		answer
		want authz.Decision // without its message
		says string
	}{
		"allowed":         {answer{`{"allow":true,"user":{"id":"7","raw_id":"7"}}`, nil}, authz.Decision{Allow: true}, ""},
		"refused":         {answer{`{"reason":"bad_signature","message":"no"}`, nil}, authz.Decision{Reason: authz.BadSignature}, "no"},
		"nobody there":    {answer{"", natsconn.ErrNoResponders}, authz.Refuse(authz.Unavailable, ""), "no authorization service"},
		"too late":        {answer{"", natsconn.ErrTimeout}, authz.Refuse(authz.Unavailable, ""), "in time"},
		"too many":        {answer{"", natsconn.ErrBusy}, authz.Refuse(authz.Unavailable, ""), "too many"},
		"closing":         {answer{"", natsconn.ErrClosed}, authz.Refuse(authz.Unavailable, ""), "try again"},
		"not JSON":        {answer{"yes", nil}, authz.Refuse(authz.Unavailable, ""), "no decision"},
		"empty":           {answer{"", nil}, authz.Refuse(authz.Unavailable, ""), "no decision"},
		"neither yes, no": {answer{"{}", nil}, authz.Refuse(authz.Unavailable, ""), "no reason"},
	} {
		t.Run(name, func(t *testing.T) {
			ask := &script{t: t, answers: slices.Repeat([]answer{tc.answer}, 2*authAttempts)}
			s := NewServices(startedAt(5), ask, sentTo{}, nil)
			var got []authz.Decision
			note := func(d authz.Decision) { got = append(got, d) }
			s.Authorize(&authz.Subscribe{App: "1", Channel: "private-a", ChannelData: `{"a":"<>&"}`}, note)
			asked := len(ask.subjects)
			s.SignIn(&authz.SignIn{App: "1", UserData: `{"id":"<7>"}`}, note)
			for _, d := range got {
				if d.Allow != tc.want.Allow || d.Reason != tc.want.Reason || d.Temporary != tc.want.Temporary || !strings.Contains(d.Message, tc.says) {
					t.Errorf("got %+v, want %+v with %q", d, tc.want, tc.says)
				}
			}
			if len(got) != 2 || ask.subjects[0] != subject.AuthSubscribe || ask.subjects[asked] != subject.AuthSignIn {
				t.Fatalf("%d answers from %v", len(got), ask.subjects)
			}
			var sub authz.Subscribe
			if err := json.Unmarshal([]byte(ask.bodies[0]), &sub); err != nil || sub.ChannelData != `{"a":"<>&"}` {
				t.Errorf("channel_data arrives as %q (%v)", sub.ChannelData, err)
			}
		})
	}
}

// A service that does not answer may have been killed: another one, or the same
// a moment later, gets a second question, as clients don't ask again.
func TestLateDecisionIsAskedForOnceMore(t *testing.T) {
	late, yes := answer{"", natsconn.ErrTimeout}, answer{`{"allow":true}`, nil}
	for name, tc := range map[string]struct {
		answers []answer
		allowed bool
		asked   int
	}{
		"at once":   {[]answer{yes}, true, 1},
		"then":      {[]answer{late, yes}, true, 2},
		"never":     {[]answer{late, late}, false, 2},
		"no answer": {[]answer{{"", natsconn.ErrNoResponders}}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ask := &script{t: t, answers: tc.answers}
			var got []authz.Decision
			NewServices(startedAt(5), ask, sentTo{}, nil).Authorize(&authz.Subscribe{App: "1", Channel: "private-a"},
				func(d authz.Decision) { got = append(got, d) })
			if len(got) != 1 || got[0].Allow != tc.allowed || len(ask.subjects) != tc.asked {
				t.Fatalf("answers %+v after %d questions", got, len(ask.subjects))
			}
		})
	}
}

func TestCached(t *testing.T) {
	behind := answer{`{"error":"behind"}`, nil}
	lost := answer{"", natsconn.ErrTimeout}
	found := answer{`{"top":5,"cached":{"position":5,"publication":"AA=="}}`, nil}
	for name, tc := range map[string]struct {
		answers []answer
		found   bool
		asked   int
	}{
		"at once":            {[]answer{found}, true, 1},
		"second owner":       {[]answer{lost, found}, true, 2},
		"an error, then yes": {[]answer{behind, found}, true, 2},
		"nobody":             {[]answer{lost, lost}, false, 2},
		"closing":            {[]answer{{"", natsconn.ErrClosed}}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ask := &script{t: t, answers: tc.answers}
			s := NewServices(startedAt(5), ask, sentTo{}, nil)
			key := channel.Key{App: "1", Name: "cache-a"}
			calls := 0
			s.Cached(history.Request{App: key.App, Channel: key.Name, AtLeast: 77, Cache: true}, func(r *history.Reply) {
				calls++
				if (r != nil) != tc.found {
					t.Errorf("reply %+v, want found %v", r, tc.found)
				}
			})
			if calls != 1 || len(ask.subjects) != tc.asked {
				t.Fatalf("%d answers after %d questions", calls, len(ask.subjects))
			}
			var req history.Request
			if err := json.Unmarshal([]byte(ask.bodies[0]), &req); err != nil || req.AtLeast != 77 || !req.Cache || req.Channel != "cache-a" {
				t.Errorf("asked %+v (%v)", req, err)
			}
			if ask.subjects[0] != subject.History(key.Partition(4)) {
				t.Errorf("asked %s", ask.subjects[0])
			}
		})
	}
}

// A page may be more than a message carries: what is missing is asked for.
func TestStreamReadsWholePages(t *testing.T) {
	reply := func(more bool, top message.Position, positions ...message.Position) answer {
		r := history.Reply{Epoch: "e", Top: top, Floor: 7, More: more}
		for _, p := range positions {
			pub := message.Publication{Kind: message.Event, App: "1", Channel: "log", Data: []byte("1")}
			r.Entries = append(r.Entries, history.Entry{Position: p, Publication: pub.Append(nil)})
		}
		body, err := json.Marshal(r)
		return answer{string(body), err}
	}
	type positions []message.Position
	for name, tc := range map[string]struct {
		page    resume.Page
		answers []answer
		asked   []history.Request
		want    positions
		top     message.Position
	}{
		"forward": {
			resume.Page{Since: 10, Limit: 5},
			[]answer{reply(true, 60, 20, 30), reply(true, 70, 40), reply(false, 70, 50, 60)},
			[]history.Request{{Since: 10, Limit: 5, Oldest: true}, {Since: 30, Limit: 3, Oldest: true}, {Since: 40, Limit: 2, Oldest: true}},
			positions{20, 30, 40, 50, 60},
			70,
		},
		"in reverse": {
			resume.Page{Before: 60, Limit: 3, Reverse: true},
			[]answer{reply(true, 60, 40, 50), reply(true, 60, 30)},
			[]history.Request{{Before: 60, Limit: 3}, {Before: 40, Limit: 1}},
			positions{30, 40, 50},
			60,
		},
		"the position":           {resume.Page{}, []answer{reply(false, 60)}, []history.Request{{Oldest: true}}, nil, 60},
		"of a forgotten channel": {resume.Page{}, []answer{reply(false, 0)}, []history.Request{{Oldest: true}}, nil, 7},
	} {
		t.Run(name, func(t *testing.T) {
			ask := &script{t: t, answers: tc.answers}
			answered := false
			NewServices(startedAt(5), ask, sentTo{}, nil).Stream(channel.Key{App: "1", Name: "log"}, tc.page, func(past *resume.Past, top message.Position, err error) {
				answered = true
				var got positions
				for _, e := range past.Entries {
					got = append(got, e.Position)
				}
				if err != nil || past.Epoch != "e" || top != tc.top || !slices.Equal(got, tc.want) {
					t.Errorf("got %v of %+v up to %d, %v", got, past, top, err)
				}
			})
			if !answered || len(ask.bodies) != len(tc.asked) {
				t.Fatalf("answered %v after %q", answered, ask.bodies)
			}
			for i, want := range tc.asked {
				var req history.Request
				want.App, want.Channel, want.AtLeast = "1", "log", 5
				if err := json.Unmarshal([]byte(ask.bodies[i]), &req); err != nil || req != want {
					t.Errorf("asked %+v (%v), want %+v", req, err, want)
				}
			}
		})
	}
}

func TestStreamOfTwoJournals(t *testing.T) {
	first := answer{`{"epoch":"e1","more":true,"entries":[{"position":1,"publication":"` + base64.StdEncoding.EncodeToString((&message.Publication{Kind: message.Event, App: "1", Channel: "log"}).Append(nil)) + `"}]}`, nil}
	ask := &script{t: t, answers: []answer{first, {`{"epoch":"e2"}`, nil}}}
	var got error
	NewServices(startedAt(5), ask, sentTo{}, nil).Stream(channel.Key{App: "1", Name: "log"}, resume.Page{Limit: 5}, func(_ *resume.Past, _ message.Position, err error) { got = err })
	if got == nil {
		t.Error("a page of two journals")
	}
}

func TestPublishCounts(t *testing.T) {
	for _, err := range []error{nil, errors.New("refused")} {
		s := NewServices(startedAt(5), &script{t: t}, sentTo{err}, nil)
		s.Publish(&message.Publication{})
		published, failed := testutil.ToFloat64(s.metrics.published), testutil.ToFloat64(s.metrics.publishFailed)
		if published+failed != 1 || (failed == 1) != (err != nil) {
			t.Errorf("with %v: %v published, %v failed", err, published, failed)
		}
	}
}
