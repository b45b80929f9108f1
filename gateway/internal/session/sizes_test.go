package session

import (
	"fmt"
	"testing"
	"unsafe"
)

// A gateway has a million sessions: what one costs is a promise. When a field
// has to be added, raise the number in the same commit and say why.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		what      string
		have, max uintptr
	}{
		{"session without subscriptions, strings aside", unsafe.Sizeof(Session{}), 160},
		{"subscription, name aside", unsafe.Sizeof(subscription{}), 32},
	} {
		t.Logf("%s: %d bytes", c.what, c.have)
		if c.have > c.max {
			t.Errorf("%s takes %d bytes, the budget is %d", c.what, c.have, c.max)
		}
	}
}

func TestIndexFollowsSubscriptions(t *testing.T) {
	s := &Session{}
	name := func(i int) string { return fmt.Sprint("channel-", i) }
	for i := range 100 {
		s.add(subscription{name: name(i)})
		if indexed := s.byName != nil; indexed != (i+1 > indexFrom) {
			t.Fatalf("%d subscriptions, indexed %v", i+1, indexed)
		}
	}
	for gone := range 100 {
		s.remove(s.find(name(gone)))
		for i := range 100 {
			at := s.find(name(i))
			if i <= gone && at >= 0 {
				t.Fatalf("%s was removed and is at %d", name(i), at)
			}
			if i > gone && (at < 0 || s.subs[at].name != name(i)) {
				t.Fatalf("%s is not found after %s was removed", name(i), name(gone))
			}
		}
	}
	if s.subs != nil || s.byName != nil {
		t.Error("a session that has left all channels keeps memory for them")
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	taken := 0
	for now := int64(0); now < 20*second; now += second / 100 { // 100 a second asked for
		if b.take(now, 10, second) {
			taken++
		}
	}
	if taken < 200 || taken > 210 {
		t.Errorf("took %d in 20 s at 10 a second and a burst of 10", taken)
	}
	if !b.take(21*second, 0, second) || !b.take(21*second, -1, second) {
		t.Error("a rate of 0 or less is no limit")
	}
}
