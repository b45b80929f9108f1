package hub

import (
	"fmt"
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// said is an encoding that says what is told of presence.
type said struct{}

func (said) AppendFrame(dst []byte, _ message.Position, pub *message.Publication) []byte {
	switch pub.Kind {
	case message.SubscriptionCount:
		return fmt.Appendf(dst, "=%d", pub.Version)
	case message.UserOnline:
		return append(dst, "^"+pub.UserID...)
	case message.UserOffline:
		return append(dst, "v"+pub.UserID...)
	}
	return dst
}

func TestTallies(t *testing.T) {
	var told []string
	in := NewInterest(Config{
		Loops: 1, Partitions: 1, Encodings: []Encoding{said{}}, Room: func() {},
		Post: func(_ int, d *Delivery) { told = append(told, string(d.Frames[0].Bytes)) },
	})
	news, user := channel.Key{App: "1", Name: "news"}, channel.Key{App: "1", Name: channel.OnlinePrefix + "u"}
	deliver := func(key channel.Key, kind message.Kind, count, seq uint64) {
		pub := message.Publication{Kind: kind, App: key.App, Channel: key.Name, Version: count, Seq: seq}
		if key == user {
			pub.UserID = "u"
		}
		in.Deliver(0, 0, &pub)
	}
	correct := func(key channel.Key, version, count uint64, online bool) {
		if !in.Correct(key, &State{Roster: Roster{Version: version}, Subscriptions: count, Online: online}) {
			t.Errorf("%s has to be asked for again", key.Name)
		}
	}
	want := func(what string, frames ...string) {
		t.Helper()
		if !slices.Equal(told, frames) {
			t.Errorf("%s: told %v, want %v", what, told, frames)
		}
		told = nil
	}
	all := func() int { return len(in.Told(0, func(channel.Key) bool { return true })) }

	in.Register(news, 0, 0, none)
	in.Register(user, 0, 0, none)
	correct(news, 5, 7, false)
	correct(user, 5, 0, true)
	want("nobody was told anything before")
	deliver(news, message.SubscriptionCount, 3, 10)
	in.Watched(user, true)
	want("a count", "=3")
	if n := all(); n != 2 {
		t.Errorf("%d channels were told of, want 2", n)
	}
	correct(news, 12, 3, false)
	correct(user, 12, 0, true)
	want("the same again")
	correct(news, 12, 0, false)
	correct(news, 13, 4, false)
	correct(user, 13, 0, false)
	want("other states", "=4", "vu")
	deliver(news, message.SubscriptionCount, 2, 12)
	deliver(user, message.UserOnline, 0, 13)
	want("events that the answers include")
	deliver(news, message.SubscriptionCount, 5, 20)
	deliver(user, message.UserOnline, 0, 20)
	in.Watched(user, false)
	want("events", "=5", "^u")
	correct(news, 19, 1, false)
	correct(user, 19, 0, false)
	want("old answers")
	correct(user, 21, 0, true)
	want("what the event said")
	if in.Correct(news, &State{Roster: Roster{Version: 30, Incomplete: true}, Subscriptions: 1}) {
		t.Error("an owner that does not know all is believed")
	}
	want("an incomplete answer")
	in.Unregister(news, 0, 0)
	in.Unregister(user, 0, 0)
	if n := all(); n != 0 || len(in.shards[0].tallies) != 0 {
		t.Errorf("%d channels are remembered", n)
	}
}
