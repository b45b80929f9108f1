package loop

import "sync"

// mailboxKeep is the capacity that an emptied mailbox keeps.
const mailboxKeep = 8 << 10

// mailbox is the only way into a loop: a bounded queue that any goroutine
// appends to and the loop takes as a whole.
type mailbox[M any] struct {
	// immutable after New
	max  int
	wake func()

	mu sync.Mutex
	// guarded by mu
	items   []M
	closed  bool
	refused int64
}

// post appends items if they fit, or in any case with always, and reports
// whether it did.
func (b *mailbox[M]) post(always bool, items ...M) bool {
	b.mu.Lock()
	if b.closed || (!always && len(b.items)+len(items) > b.max) {
		b.refused += int64(len(items))
		b.mu.Unlock()
		return false
	}
	b.items = append(b.items, items...)
	b.mu.Unlock()
	b.wake()
	return true
}

// take returns all items and leaves empty in their place.
func (b *mailbox[M]) take(empty []M) []M {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) == 0 {
		return empty
	}
	items := b.items
	if cap(empty) > mailboxKeep && len(items) < mailboxKeep/2 {
		empty = nil // a burst is over
	}
	b.items = empty
	return items
}

// depth returns how many items wait and how many were refused so far.
func (b *mailbox[M]) depth() (waiting int, refused int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items), b.refused
}

// close refuses everything from now on.
func (b *mailbox[M]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.items = nil
}
