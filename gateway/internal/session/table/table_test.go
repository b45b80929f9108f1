package table

import (
	"fmt"
	"testing"
)

type row string

func (r row) Name() string { return string(r) }

func TestIndexFollowsRows(t *testing.T) {
	var tb Table[row]
	name := func(i int) string { return fmt.Sprint("channel-", i) }
	for i := range 100 {
		tb.Add(row(name(i)))
		if indexed := tb.byName != nil; indexed != (i+1 > IndexFrom) {
			t.Fatalf("%d subscriptions, indexed %v", i+1, indexed)
		}
	}
	for gone := range 100 {
		if got := tb.Take(tb.Find(name(gone))); got.Name() != name(gone) {
			t.Fatalf("took %s, want %s", got, name(gone))
		}
		for i := range 100 {
			at := tb.Find(name(i))
			if i <= gone && at >= 0 {
				t.Fatalf("%s was removed and is at %d", name(i), at)
			}
			if i > gone && (at < 0 || tb.Rows[at].Name() != name(i)) {
				t.Fatalf("%s is not found after %s was removed", name(i), name(gone))
			}
		}
	}
	if tb.Rows != nil || tb.byName != nil {
		t.Error("a session that has left all channels keeps memory for them")
	}
}

func TestRate(t *testing.T) {
	var r Rate
	taken := 0
	for now := int64(0); now < 20*second; now += second / 100 { // 100 a second asked for
		if r.Take(now, 10, second) {
			taken++
		}
	}
	if taken < 200 || taken > 210 {
		t.Errorf("took %d in 20 s at 10 a second and a burst of 10", taken)
	}
	if !r.Take(21*second, 0, second) || !r.Take(21*second, -1, second) {
		t.Error("a rate of 0 or less is no limit")
	}
}
