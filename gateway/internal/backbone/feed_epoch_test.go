package backbone

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// What was delivered can be read for a while, by whoever may ask for it; a new
// life of the journal begins without memory.
func TestRecentIsWhatWasDelivered(t *testing.T) {
	var recovers atomic.Bool
	b := newBench(t, benchOptions{republish: true, cfg: FeedConfig{
		RecentBytes: 1 << 20, RecentAge: time.Hour, Recovers: recovers.Load,
	}})
	read := func() (data []string, low message.Position) {
		entries, reach := b.feed.Recent(0).Read(nil, channel.Key{App: "1", Name: "news"}, 0)
		for _, e := range entries {
			data = append(data, string(e.Publication.Data))
		}
		return data, reach.Low
	}
	if at := b.feed.Empty(0); at == 0 || at != b.feed.Last(0) {
		t.Errorf("an empty partition begins at %d, the feed is at %d", at, b.feed.Last(0))
	}
	b.store("nobody may ask")
	b.sink.untilGot(t, "nobody may ask@1")
	if got, low := read(); len(got) > 0 || low < message.At(1000, 0) {
		t.Errorf("kept %v above %d for nobody", got, low)
	}
	recovers.Store(true)
	b.beat(1, "e1")
	await.True(t, "it is kept from now on", func() bool { _, low := read(); return low == message.At(1, 0) })
	b.store("a", "b")
	b.sink.until(t, "delivered", func() bool { return len(b.sink.got) == 3 })
	if got, low := read(); fmt.Sprint(got) != "[a b]" || low != message.At(1, 0) || b.feed.RecentBytes() == 0 {
		t.Errorf("%v above %d", got, low)
	}
	b.beat(2, "e2")
	b.sink.until(t, "broken and begun anew", func() bool { return b.sink.broken == 1 && len(b.sink.starts) == 2 })
	if got, low := read(); len(got) > 0 || low != message.At(2, 1) || fmt.Sprint(b.sink.epochs) != "[e1 e2]" {
		t.Errorf("%v above %d after epochs %v", got, low, b.sink.epochs)
	}
}

// The stream is made anew before the first heartbeat tells of its epoch.
func TestNewStreamBeforeTheFirstHeartbeatIsTold(t *testing.T) {
	b := newBench(t, benchOptions{republish: true, before: 5})
	if err := b.js.DeleteStream(t.Context(), subject.JournalStream); err != nil {
		t.Fatal(err)
	}
	b.createStream(true)
	b.prev = 0
	b.beat(0, "e2")
	b.sink.until(t, "broken", func() bool { return b.sink.broken == 1 && len(b.sink.starts) == 2 })
	b.store("first")
	b.sink.untilGot(t, "first@1")
}

// The log goes backwards, and the routers do not know yet: their epoch is no
// longer that of the positions.
func TestAnEpochThatHasEndedIsNotTold(t *testing.T) {
	b := newBench(t, benchOptions{republish: true, before: 5})
	b.beat(5, "e1")
	b.store("old")
	b.sink.untilGot(t, "old@6")
	if err := b.js.DeleteStream(t.Context(), subject.JournalStream); err != nil {
		t.Fatal(err)
	}
	b.createStream(true)
	b.prev = 0
	b.store("first")
	b.feed.doubt()
	b.sink.until(t, "broken", func() bool { return b.sink.broken == 1 && len(b.sink.starts) == 2 })
	b.beat(1, "e1")
	b.beat(1, "e2")
	b.sink.until(t, "broken again", func() bool { return b.sink.broken == 2 && len(b.sink.starts) == 3 })
	b.beat(1, "e1") // of another router, which is slow
	b.beat(1, "e2")
	b.send(&nats.Msg{Subject: subject.Live(0), Data: batch("live")})
	b.sink.until(t, "goes on", func() bool { return b.sink.got[len(b.sink.got)-1] == "live@0" })
	b.beat(1, "e1")
	b.store("second")
	b.sink.until(t, "goes on", func() bool { return b.sink.got[len(b.sink.got)-1] == "second@2" })
	b.sink.mu.Lock()
	defer b.sink.mu.Unlock()
	if got := fmt.Sprint(b.sink.epochs); got != "[e1 e1? e2]" {
		t.Errorf("epochs %s, want e1, then none that clients know, then e2", got)
	}
	if b.sink.broken != 2 {
		t.Errorf("broken %d times, twice was right", b.sink.broken)
	}
}
