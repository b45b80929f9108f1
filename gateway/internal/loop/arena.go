package loop

import "github.com/carillon-rt/carillon/gateway/internal/ws"

// arenaChunkBytes is the size of the arena's memory between turns.
const arenaChunkBytes = 64 << 10

// arena keeps private bytes until the turn's writes: appended to one chunk,
// forgotten all at once. What it returned is valid until reset.
type arena struct {
	chunk []byte
}

// copy returns a copy of b.
func (a *arena) copy(b []byte) []byte {
	start := a.reserve(len(b))
	a.chunk = append(a.chunk, b...)
	return a.chunk[start:len(a.chunk):len(a.chunk)]
}

// frame returns payload as a frame.
func (a *arena) frame(op ws.Op, payload []byte) []byte {
	start := a.reserve(ws.HeaderBytesMax + len(payload))
	a.chunk = ws.AppendFrame(a.chunk, op, payload)
	return a.chunk[start:len(a.chunk):len(a.chunk)]
}

// reserve makes room for n bytes without moving what was returned before, and
// returns where they start.
func (a *arena) reserve(n int) int {
	if cap(a.chunk)-len(a.chunk) < n {
		a.chunk = make([]byte, 0, max(n, arenaChunkBytes))
	}
	return len(a.chunk)
}

// reset forgets everything, and memory beyond one chunk.
func (a *arena) reset() {
	if cap(a.chunk) > arenaChunkBytes {
		a.chunk = nil
	}
	a.chunk = a.chunk[:0]
}
