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
		l.enter("a", func() { began = append(began, i) }, func() { refused = append(refused, i) })
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
	l.enter("a", func() {}, nil)
	deep, deepest, n := 0, 0, 0
	for range 10 {
		l.enter("a", func() {
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

// TestLineTakesTurns: an app that is stormed waits for itself, not the others
// for it.
func TestLineTakesTurns(t *testing.T) {
	l := newLine(1, 6, time.Minute)
	var began, refused []string
	enter := func(app, name string) {
		l.enter(app, func() { began = append(began, name) }, func() { refused = append(refused, name) })
	}
	for _, name := range []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "b1", "c1", "b2", "a8", "b3", "b4"} {
		enter(name[:1], name)
	}
	// a1 to a6 fill the line and a7 has nobody to take a place from. b1, c1 and
	// b2 take those of a6, a5 and a4; b3 would only turn the tables.
	if want := []string{"a7", "a6", "a5", "a4", "a8", "b3", "b4"}; !slices.Equal(refused, want) {
		t.Errorf("refused %v, want %v", refused, want)
	}
	for range 7 {
		l.leave()
	}
	if want := []string{"a0", "a1", "b1", "c1", "a2", "b2", "a3"}; !slices.Equal(began, want) {
		t.Errorf("began %v, want %v", began, want)
	}
	if len(l.queues) != 0 || len(l.turns) != 0 || l.length() != 0 || l.underway != 0 {
		t.Errorf("%v, %v, %d, %d are left", l.queues, l.turns, l.length(), l.underway)
	}
}

// TestLineOfMany: when every app has one in line no other gets in.
func TestLineOfMany(t *testing.T) {
	l := newLine(1, 3, time.Minute)
	var began, refused []string
	for _, app := range []string{"z", "a", "b", "c", "d", "a"} {
		l.enter(app, func() { began = append(began, app) }, func() { refused = append(refused, app) })
	}
	for range 4 {
		l.leave()
	}
	if want := []string{"z", "a", "b", "c"}; !slices.Equal(began, want) || !slices.Equal(refused, []string{"d", "a"}) {
		t.Errorf("began %v, want %v; refused %v", began, want, refused)
	}
}
