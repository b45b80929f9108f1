package occupancy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// router answers history requests from the positions 1 to 9, three to a
// message.
func router(t *testing.T, nc *nats.Conn, reply func(q *history.Request, out *history.Reply)) {
	t.Helper()
	if _, err := nc.Subscribe("car.hist.*", func(msg *nats.Msg) {
		var q history.Request
		if err := json.Unmarshal(msg.Data, &q); err != nil {
			t.Error(err)
		}
		out := history.Reply{Epoch: "e", Top: 9}
		var in []history.Entry
		for pos := message.Position(1); pos <= 9; pos++ {
			if pos > q.Since && (q.Before == 0 || pos < q.Before) {
				p := message.Publication{Kind: message.Event, App: q.App, Channel: q.Channel, Data: fmt.Append(nil, pos)}
				in = append(in, history.Entry{Position: pos, Publication: p.Append(nil)})
			}
		}
		if n := min(q.Limit, 3); len(in) > n {
			if out.More = true; q.Oldest {
				in = in[:n]
			} else {
				in = in[len(in)-n:]
			}
		}
		out.Entries = in
		if reply != nil {
			reply(&q, &out)
		}
		body, _ := json.Marshal(out)
		_ = msg.Respond(body)
	}); err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
}

func TestHistoryInParts(t *testing.T) {
	r, nc := newReader(t)
	router(t, nc, nil)
	for _, tc := range []struct {
		name string
		q    HistoryQuery
		want string
	}{
		{"position only", HistoryQuery{}, ""},
		{"all", HistoryQuery{Limit: 1000}, "123456789"},
		{"the oldest", HistoryQuery{Limit: 4}, "1234"},
		{"the newest", HistoryQuery{Limit: 4, Reverse: true}, "9876"},
		{"since", HistoryQuery{Limit: 1000, Since: 4}, "56789"},
		{"back from", HistoryQuery{Limit: 1000, Before: 6, Reverse: true}, "54321"},
	} {
		past, err := r.History(t.Context(), "1", "a", tc.q)
		var got strings.Builder
		for _, k := range past.Publications {
			got.Write(k.Data)
		}
		if err != nil || got.String() != tc.want || past.Epoch != "e" || past.Top != 9 {
			t.Errorf("%s: %s at %d of %s, %v; want %s at 9", tc.name, got.String(), past.Top, past.Epoch, err, tc.want)
		}
	}
}

// Who publishes here and then reads is answered by a router that has it. What
// was published before the journal began anew is not waited for.
func TestHistoryHasWhatWasPublished(t *testing.T) {
	r, nc := newReader(t)
	var least []message.Position
	router(t, nc, func(q *history.Request, out *history.Reply) {
		least = append(least, q.AtLeast)
		if out.Epoch = "new"; q.AtLeast > 9 {
			*out = history.Reply{Error: "not reached yet", Epoch: "new"}
		}
	})
	r.Saw("1", "a", "old", 50)
	r.Saw("1", "a", "old", 40)
	r.Saw("1", "a", "old", 0)
	past, err := r.History(t.Context(), "1", "a", HistoryQuery{})
	if err != nil || past.Epoch != "new" || !slices.Equal(least, []message.Position{50, 0}) {
		t.Errorf("%+v, %v, asked for at least %d", past, err, least)
	}
	r.Saw("1", "a", "new", 10)
	if _, err := r.History(t.Context(), "1", "a", HistoryQuery{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("of a position that is not reached: %v", err)
	}
}

func TestHistoryOfAnEpochThatEnds(t *testing.T) {
	r, nc := newReader(t)
	n := 0
	router(t, nc, func(_ *history.Request, out *history.Reply) { n++; out.Epoch = fmt.Sprint("e", n) })
	if _, err := r.History(t.Context(), "1", "a", HistoryQuery{Limit: 9}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("read over two epochs: %v", err)
	}
}

// A channel that nothing is known of any more is where the floor is.
func TestHistoryOfAForgottenChannel(t *testing.T) {
	r, nc := newReader(t)
	router(t, nc, func(_ *history.Request, out *history.Reply) { *out = history.Reply{Epoch: "e", Floor: 77} })
	if past, err := r.History(t.Context(), "1", "a", HistoryQuery{Limit: 9}); err != nil || past.Top != 77 || len(past.Publications) > 0 {
		t.Errorf("%+v, %v", past, err)
	}
}

func TestPage(t *testing.T) {
	r, nc := newReader(t)
	names := []string{"#online-1", "#server-to-user-1", "a:1", "a:2", "b:1", "b:2", "b:3"}
	if _, err := nc.Subscribe("car.pres.*.query", func(msg *nats.Msg) {
		var q presence.Query
		if err := json.Unmarshal(msg.Data, &q); err != nil || !q.Hash || !q.All || q.Limit == 0 {
			t.Errorf("query %s: %v", msg.Data, err)
		}
		var a presence.Answer
		if strings.Contains(msg.Subject, ".5.") || strings.Contains(msg.Subject, ".7.") {
			for i, name := range names {
				switch {
				case name <= q.After || !strings.HasPrefix(name, q.Prefix) || (i%2 == 0) != strings.Contains(msg.Subject, ".5."):
				case len(a.Channels) == min(q.Limit, 2):
					a.More = true
				default:
					a.Channels = append(a.Channels, presence.ChannelInfo{Name: name, Subscriptions: 1})
				}
			}
		}
		body, _ := json.Marshal(a)
		_ = msg.Respond(body)
	}); err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		q    ListQuery
		want string
		more bool
	}{
		{ListQuery{Limit: 10}, "#server-to-user-1 a:1 a:2 b:1 b:2 b:3", false},
		{ListQuery{Limit: 2}, "#server-to-user-1 a:1", true},
		{ListQuery{Limit: 2, After: "a:1"}, "a:2 b:1", true},
		{ListQuery{Limit: 2, After: "b:1"}, "b:2 b:3", false},
		{ListQuery{Limit: 2, Prefix: "b"}, "b:1 b:2", true},
		{ListQuery{Limit: 5, Keep: func(name string) bool { return strings.HasSuffix(name, "3") }}, "b:3", false},
	} {
		infos, more, _, err := r.Page(t.Context(), "1", tc.q)
		var got []string
		for _, info := range infos {
			got = append(got, info.Name)
		}
		if strings.Join(got, " ") != tc.want || more != tc.more || err != nil {
			t.Errorf("%+v: %s, more %v, %v; want %s, %v", tc.q, strings.Join(got, " "), more, err, tc.want, tc.more)
		}
	}
}
