// Package table is what sessions of all protocols keep of a connection: its
// subscriptions by channel, and rates. It is pure.
package table

// Row is a subscription of one channel.
type Row interface{ Name() string }

// Table is the subscriptions of a connection. Its rows have no order.
type Table[T Row] struct {
	Rows   []T
	byName map[string]int32 // index into Rows, nil while these are few
}

// IndexFrom is the number of subscriptions above which names are looked up in
// a map. Below, comparing strings one by one is as fast and costs no memory.
const IndexFrom = 16

// Find gives the index of a channel's row, -1 if there is none.
func (t *Table[T]) Find(name string) int {
	if t.byName != nil {
		if i, ok := t.byName[name]; ok {
			return int(i)
		}
		return -1
	}
	for i := range t.Rows {
		if t.Rows[i].Name() == name {
			return i
		}
	}
	return -1
}

// Add adds the row of a channel that has none.
func (t *Table[T]) Add(row T) {
	t.Rows = append(t.Rows, row)
	switch {
	case t.byName != nil:
		t.byName[row.Name()] = int32(len(t.Rows) - 1)
	case len(t.Rows) > IndexFrom:
		t.byName = make(map[string]int32, 2*IndexFrom)
		for i := range t.Rows {
			t.byName[t.Rows[i].Name()] = int32(i)
		}
	}
}

// Take takes row i out; the last one takes its place.
func (t *Table[T]) Take(i int) T {
	row, last := t.Rows[i], len(t.Rows)-1
	if t.byName != nil {
		delete(t.byName, row.Name())
		if i != last {
			t.byName[t.Rows[last].Name()] = int32(i)
		}
	}
	t.Rows[i] = t.Rows[last]
	clear(t.Rows[last:])
	t.Rows = t.Rows[:last]
	if last == 0 {
		*t = Table[T]{}
	}
	return row
}

const second = int64(1e9)

// Rate limits a rate: it is the time at which it will be empty again.
type Rate int64

// Take takes one and reports whether that keeps within perSecond averaged over
// window nanoseconds; a rate of 0 or less is no limit. What is over is not
// counted.
func (r *Rate) Take(now int64, perSecond int, window int64) bool {
	if perSecond <= 0 {
		return true
	}
	empty := max(int64(*r), now) + max(1, second/int64(perSecond))
	if empty > now+window {
		return false
	}
	*r = Rate(empty)
	return true
}
