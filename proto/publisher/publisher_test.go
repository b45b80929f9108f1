package publisher

import (
	"errors"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/message"
)

func TestLaneBounds(t *testing.T) {
	cfg := Config{QueueMax: 3, QueueBytesMax: 1 << 20}
	l := &lane{}
	pub := &message.Publication{App: "1", Channel: "c"}
	for i := range 3 {
		wake, err := l.add(pub, nil, time.Now, &cfg, message.BatchBytesLeast)
		if err != nil || wake != (i == 0) {
			t.Fatalf("publication %d: wake %v, error %v", i, wake, err)
		}
	}
	if _, err := l.add(pub, nil, time.Now, &cfg, message.BatchBytesLeast); !errors.Is(err, ErrBusy) {
		t.Fatalf("over QueueMax: %v", err)
	}
	if b := l.next(); b.Len() != 3 {
		t.Fatalf("the batch has %d publications", b.Len())
	}
	small := Config{QueueMax: 10, QueueBytesMax: 100}
	big := &message.Publication{App: "1", Channel: "c", Data: make([]byte, 90)}
	if _, err := l.add(big, nil, time.Now, &small, message.BatchBytesLeast); err != nil {
		t.Fatalf("one publication: %v", err)
	}
	if _, err := l.add(big, nil, time.Now, &small, message.BatchBytesLeast); !errors.Is(err, ErrBusy) {
		t.Fatalf("over QueueBytesMax: %v", err)
	}
	l.close()
	if _, err := l.add(pub, nil, time.Now, &cfg, message.BatchBytesLeast); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("closed: %v", err)
	}
}

func TestLaneCutsBatches(t *testing.T) {
	cfg := Config{QueueMax: 10_000, QueueBytesMax: 1 << 30}
	l := &lane{}
	pub := &message.Publication{App: "1", Channel: "c"}
	for range message.BatchPublicationsMax + 1 {
		if _, err := l.add(pub, nil, time.Now, &cfg, message.BatchBytesLeast); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c := l.next(), l.next(), l.next(); a.Len() != message.BatchPublicationsMax || b.Len() != 1 || c != nil {
		t.Fatal("the queue is not cut at the size of a batch")
	}
	if l.count != 0 || l.bytes != 0 {
		t.Fatalf("an empty lane counts %d publications and %d bytes", l.count, l.bytes)
	}
}

func TestPreferred(t *testing.T) {
	routers := []string{"r1", "r2", "r3", "r4"}
	count := map[string]int{}
	for p := range 400 {
		node := Preferred(routers, p)
		count[node]++
		if other := Preferred([]string{"r4", "r2", "r3", "r1"}, p); other != node {
			t.Fatalf("partition %d: %s or %s, depending on the order", p, node, other)
		}
		if node != "r4" && Preferred(routers[:3], p) != node {
			t.Fatalf("partition %d moves although its router stays", p)
		}
	}
	for _, r := range routers {
		if count[r] < 60 {
			t.Errorf("%s is preferred by %d of 400 partitions", r, count[r])
		}
	}
	if Preferred(nil, 1) != "" {
		t.Error("a router is preferred where there is none")
	}
}
