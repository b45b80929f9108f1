package publish

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// answers is a sender with fixed receipts.
type answers []publisher.Receipt

func (a answers) PublishWait(context.Context, []*message.Publication) []publisher.Receipt { return a }

func TestAppendKeys(t *testing.T) {
	a := app.App{ID: "1"}.WithDefaults()
	p := New(answers(nil), func() time.Time { return time.UnixMilli(7) })
	for _, tc := range []struct {
		name string
		ev   Event
		want []string
	}{
		{"none", Event{Channels: []string{"a", "b"}}, []string{"", ""}},
		{"own, one channel", Event{IdempotencyKey: "k", Channels: []string{"a"}}, []string{"k"}},
		{"own, two channels", Event{IdempotencyKey: "k", Channels: []string{"a", "b"}}, []string{"k#0", "k#1"}},
		{"shared", Event{IdempotencyKey: "k", KeyFirst: 4, KeyItems: 9, Channels: []string{"a"}}, []string{"k#4"}},
		{"shared with nobody", Event{IdempotencyKey: "k", KeyFirst: 0, KeyItems: 1, Channels: []string{"a"}}, []string{"k"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.ev.Name = "e"
			pubs, err := p.Append(nil, &a, &tc.ev)
			if err != nil || len(pubs) != len(tc.want) {
				t.Fatalf("%d publications: %v", len(pubs), err)
			}
			for i, pub := range pubs {
				if pub.IdempotencyKey != tc.want[i] || pub.TimeMs != 7 || pub.App != "1" {
					t.Errorf("publication %+v, want key %q", pub, tc.want[i])
				}
			}
		})
	}
}

func TestSend(t *testing.T) {
	refused := &publisher.Error{Code: publisher.BadChannel, Message: "bad channel"}
	for _, tc := range []struct {
		name     string
		receipts answers
		want     error
	}{
		{"all taken", answers{{}, {}}, nil},
		{"a duplicate is taken", answers{{Duplicate: true}, {}}, nil},
		{"one refused", answers{{}, {Err: refused}}, ErrInvalid},
		{"too large", answers{{Err: &publisher.Error{Code: publisher.TooLarge}}, {}}, ErrTooLarge},
		{"unavailable before refused", answers{{Err: refused}, {Err: publisher.ErrUnavailable}}, publisher.ErrUnavailable},
		{"busy", answers{{Err: publisher.ErrBusy}, {}}, publisher.ErrBusy},
		{"an error without a code", answers{{Err: errors.New("odd")}, {}}, publisher.ErrUnavailable},
		{"receipts are missing", answers{{}}, publisher.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.receipts, time.Now).Send(t.Context(), []*message.Publication{{Channel: "a"}, {Channel: "b"}})
			if !errors.Is(err, tc.want) || (tc.want == nil && err != nil) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSocketID(t *testing.T) {
	for s, want := range map[string]bool{
		"1.2": true, "123456789.987654321": true,
		"": false, ".": false, "1": false, "1.": false, ".2": false, "1.2.3": false, "a.2": false, "1.2\n": false, "-1.2": false, "١.٢": false,
	} {
		if SocketID(s) != want {
			t.Errorf("SocketID(%q) = %v", s, !want)
		}
	}
}
