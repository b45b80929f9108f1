package session

import (
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
