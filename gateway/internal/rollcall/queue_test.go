package rollcall

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/carillon-rt/carillon/proto/channel"
)

func key(i int) channel.Key { return channel.Key{App: "1", Name: fmt.Sprint("presence-", i)} }

func TestQueueBacksOff(t *testing.T) {
	q := NewQueue(2)
	q.Add(key(1))
	now := int64(1000)
	for _, wait := range []int64{100, 200, 400, 800} {
		k, ok := q.Next()
		if !ok || k != key(1) {
			t.Fatalf("next is %v, %v", k, ok)
		}
		q.Done(k, false, now)
		now += wait
		if q.Tick(now - 1); len(q.line) > 0 {
			t.Errorf("asked again before %d ms", wait)
		}
		q.Tick(now)
	}
	k, _ := q.Next()
	q.Done(k, false, now)
	q.Add(k) // doubted anew: at once
	if q.Tick(now); len(q.line) != 1 {
		t.Error("a new doubt waits")
	}
	k, _ = q.Next()
	q.Add(k) // while it is asked for
	q.Done(k, true, now)
	if k, ok := q.Next(); !ok || q.Len() != 1 {
		t.Error("a doubt during the question is forgotten")
	} else if q.Done(k, true, now); q.Len() != 0 {
		t.Error("it never ends")
	}
}

// TestQueue: no more are under way than may be, none twice at a time, and
// after its last doubt each is asked about until that is answered for good.
func TestQueue(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 9))
		q := NewQueue(4)
		var underway []channel.Key
		owed := map[channel.Key]bool{}  // doubted, not asked about since
		asking := map[channel.Key]int{} // 1 while asked about
		now := int64(0)
		done := func(good bool) {
			i := r.IntN(len(underway))
			k := underway[i]
			underway = append(underway[:i], underway[i+1:]...)
			asking[k]--
			owed[k] = owed[k] || !good
			q.Done(k, good, now)
		}
		next := func() {
			if k, ok := q.Next(); ok {
				underway = append(underway, k)
				owed[k] = false
				if asking[k]++; asking[k] > 1 || len(underway) > 4 {
					t.Fatalf("seed %d: %v under way, %v twice", seed, underway, k)
				}
			}
		}
		for range 200 {
			switch r.IntN(4) {
			case 0:
				k := key(r.IntN(12))
				q.Add(k)
				owed[k] = true
			case 1:
				next()
			case 2:
				if len(underway) > 0 {
					done(r.IntN(3) > 0)
				}
			case 3:
				now += r.Int64N(300)
				q.Tick(now)
			}
		}
		for range 1000 {
			now += againMaxMs
			q.Tick(now)
			next()
			if len(underway) > 0 {
				done(true)
			}
		}
		for k, is := range owed {
			if is {
				t.Errorf("seed %d: %v was not asked about after its last doubt", seed, k)
			}
		}
		if q.Len() != 0 || q.underway != 0 || len(q.line)+len(q.later) > 0 {
			t.Errorf("seed %d: %d are left", seed, q.Len())
		}
	}
}
