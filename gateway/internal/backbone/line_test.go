package backbone

import (
	"slices"
	"testing"
	"time"
)

// TestLine walks through one: two at a time, three in line, for a second.
func TestLine(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLine(2, 3, time.Second)
	l.now = func() time.Time { return now }
	var began, refused []int
	enter := func(i int) {
		l.enter(func() { began = append(began, i) }, func() { refused = append(refused, i) })
	}
	for i := range 6 {
		enter(i)
	}
	if !slices.Equal(began, []int{0, 1}) || !slices.Equal(refused, []int{5}) || l.length() != 3 {
		t.Fatalf("began %v, refused %v, %d in line", began, refused, l.length())
	}
	l.leave()
	if !slices.Equal(began, []int{0, 1, 2}) {
		t.Fatalf("began %v after one had left", began)
	}
	now = now.Add(2 * time.Second)
	enter(6)
	l.leave() // 3 and 4 have waited for too long
	if !slices.Equal(refused, []int{5, 3, 4}) || !slices.Equal(began, []int{0, 1, 2, 6}) {
		t.Fatalf("began %v, refused %v", began, refused)
	}
	l.leave()
	l.leave()
	if l.length() != 0 || l.underway != 0 {
		t.Errorf("%d in line, %d under way at the end", l.length(), l.underway)
	}
	enter(7)
	if began[len(began)-1] != 7 {
		t.Error("a free turn was not given")
	}
}

// TestLineAtOnce: answers that come at once, as refusals of a closed
// connection do, must not deepen the stack with each request in line.
func TestLineAtOnce(t *testing.T) {
	l := newLine(1, 10, time.Minute)
	l.enter(func() {}, nil)
	deep, deepest, n := 0, 0, 0
	for range 10 {
		l.enter(func() {
			n++
			deep++
			deepest = max(deepest, deep)
			l.leave()
			deep--
		}, func() { t.Error("refused") })
	}
	l.leave()
	if n != 10 || deepest != 1 {
		t.Errorf("%d began, %d within one another", n, deepest)
	}
}
