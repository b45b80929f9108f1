package edge

import (
	"sync"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// directory is the sessions of this node that their clients have named.
type directory struct {
	mu sync.Mutex
	// guarded by mu
	names map[string]entry
}

// entry is a session, or the intention to begin one.
type entry struct {
	handle loop.Handle
	there  bool
}

// reserve takes a name for a session that is about to begin; false if it is
// taken.
func (d *directory) reserve(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.names[name]; taken {
		return false
	}
	if d.names == nil {
		d.names = map[string]entry{}
	}
	d.names[name] = entry{}
	return true
}

// put says where the session of a reserved name is.
func (d *directory) put(name string, at loop.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name] = entry{handle: at, there: true}
}

// drop gives a name up.
func (d *directory) drop(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, name)
}

// find gives the session of a name.
func (d *directory) find(name string) (at loop.Handle, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.names[name]
	return e.handle, e.there
}
