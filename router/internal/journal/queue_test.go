package journal

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

type noted struct{ receipts map[int]publisher.Receipt }

func (n *noted) Settle(i int, r publisher.Receipt) {
	if _, twice := n.receipts[i]; twice {
		panic(fmt.Sprintf("publication %d is settled twice", i))
	}
	n.receipts[i] = r
}

func contents(t interface{ Fatalf(string, ...any) }, ps []*parcel) (channels, data []string) {
	for _, p := range ps {
		r := message.NewReader(p.batch.Bytes())
		var pub message.Publication
		for r.Next(&pub) {
			channels = append(channels, pub.Channel)
			data = append(data, string(pub.Data))
		}
		if r.Err() != nil {
			t.Fatalf("a parcel can't be read: %v", r.Err())
		}
	}
	return channels, data
}

// TestQueueKeepsOrder takes flights from queues of any mix: nothing is lost,
// each lane's order holds, and no flight has two messages of which one could
// overtake the other on its channel.
func TestQueueKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{countMax: 1000, bytesMax: 1 << 30, batchBytes: message.BatchBytesMax}
		liveOnly := rapid.Bool().Draw(t, "live")
		n := rapid.IntRange(0, 200).Draw(t, "n")
		var want []string
		for i := range n {
			pub := &message.Publication{Channel: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "channel"), Data: []byte(fmt.Sprint(i))}
			it := Item{Pub: pub, Ticket: &noted{}, Index: i}
			if rapid.IntRange(0, 2).Draw(t, "keyed") == 0 {
				it.MsgID = fmt.Sprint("k", i)
			}
			if _, err := q.add(&it); err != nil {
				t.Fatal(err)
			}
			want = append(want, string(pub.Data))
		}
		var got []string
		for {
			ps := q.take(nil, liveOnly)
			if len(ps) == 0 {
				break
			}
			channels, data := contents(t, ps)
			got = append(got, data...)
			keyed := ps[0].msgID != ""
			for _, p := range ps {
				if (p.msgID != "") != keyed {
					t.Fatalf("a flight mixes batches with single publications")
				}
			}
			slices.Sort(channels)
			if keyed && len(slices.Compact(channels)) != len(ps) {
				t.Fatalf("a flight has two single publications of one channel")
			}
			if !keyed && !liveOnly && len(ps) > 1 {
				t.Fatalf("a durable lane flies %d batches at once", len(ps))
			}
			q.recycle(ps)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("taken %v, added %v", got, want)
		}
		if q.count != 0 || q.bytes != 0 {
			t.Fatalf("an empty queue counts %d publications and %d bytes", q.count, q.bytes)
		}
	})
}

func TestQueueBounds(t *testing.T) {
	q := &queue{countMax: 2, bytesMax: 1 << 20}
	it := Item{Pub: &message.Publication{Channel: "c"}, Ticket: &noted{}}
	for range 2 {
		if _, err := q.add(&it); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.add(&it); !errors.Is(err, publisher.ErrBusy) {
		t.Errorf("over the count: %v", err)
	}
	q = &queue{countMax: 100, bytesMax: 10}
	big := Item{Pub: &message.Publication{Channel: "c", Data: make([]byte, 100)}, Ticket: &noted{}}
	if _, err := q.add(&big); err != nil {
		t.Errorf("an empty queue refuses a large publication: %v", err)
	}
	if _, err := q.add(&it); !errors.Is(err, publisher.ErrBusy) {
		t.Errorf("over the bytes: %v", err)
	}
	q.close()
	if _, err := q.add(&it); !errors.Is(err, publisher.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
}

func TestParcelSettlesWithPositions(t *testing.T) {
	n := &noted{receipts: map[int]publisher.Receipt{}}
	p := &parcel{}
	now := time.Unix(100, 0)
	for i, deadline := range []time.Time{now, now.Add(time.Second)} {
		p.add(&Item{Pub: &message.Publication{}, Ticket: n, Index: 10 + i, Deadline: deadline})
	}
	if p.tooLate(now.Add(time.Second)) || !p.tooLate(now.Add(2*time.Second)) {
		t.Error("a parcel is too late when its last publication is, and not before")
	}
	p.add(&Item{Pub: &message.Publication{}, Ticket: n, Index: 12})
	p.add(&Item{Pub: &message.Publication{}, Ticket: n, Index: 13, Deadline: now})
	if p.tooLate(now.Add(time.Hour)) {
		t.Error("a parcel with a publication without deadline is too late")
	}
	p.settle(7, "e", false, nil)
	for i := range 4 {
		want := publisher.Receipt{Position: message.At(7, i), Epoch: "e"}
		if got := n.receipts[10+i]; got != want {
			t.Errorf("receipt %d is %+v, want %+v", i, got, want)
		}
	}
}
