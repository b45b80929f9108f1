package loop

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestOutboxAgainstAModel: pieces, shared and private, of which any part was
// written, come out whole and in order; and what keepBegun keeps is exactly
// the rest of the piece that was cut.
func TestOutboxAgainstAModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		o := &outbox{}
		var g gather
		want := queueRandom(rng, &g, o, rng.IntN(50))
		pieceEnds := o.offset > 0
		for range rng.IntN(20) {
			more := queueRandom(rng, &g, o, 0)
			want = append(want, more...)
		}
		if pieceEnds {
			checkKept(t, seed, o, want)
		}
		for !o.empty() {
			offered := o.pieces(&g, 1+rng.IntN(4))
			n := rng.IntN(offered + 1)
			got := bytes.Clone(g.join()[:n])
			g.reset()
			o.advance(n)
			if !bytes.HasPrefix(want, got) {
				t.Fatalf("seed %d: wrong bytes", seed)
			}
			want = want[n:]
		}
		if len(want) > 0 || o.bytes != 0 {
			t.Fatalf("seed %d: %d bytes never came, %d are still counted", seed, len(want), o.bytes)
		}
	}
}

// queueRandom moves a few random pieces to o of which written bytes were
// written, spoils the private ones, and returns what must come out.
func queueRandom(rng *rand.Rand, g *gather, o *outbox, written int) []byte {
	var all []byte
	var arena [][]byte
	for range 1 + rng.IntN(5) {
		p := make([]byte, 1+rng.IntN(40))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		private := rng.IntN(2) == 0
		if private {
			arena = append(arena, p)
		}
		all = append(all, p...)
		g.add(p, private)
	}
	written = min(written, len(all)-1)
	g.moveTo(o, written, 1)
	for _, p := range arena {
		clear(p) // the arena is reused
	}
	return all[written:]
}

// checkKept checks keepBegun on a copy of o.
func checkKept(t *testing.T, seed uint64, o *outbox, want []byte) {
	t.Helper()
	kept := &outbox{items: append([]item(nil), o.items...), next: o.next, offset: o.offset, bytes: o.bytes}
	rest := len(o.items[o.next].bytes) - o.offset
	kept.keepBegun()
	var g gather
	if n := kept.pieces(&g, 64); n != rest || !bytes.Equal(g.join(), want[:rest]) {
		t.Fatalf("seed %d: kept %d bytes of a piece with %d left", seed, n, rest)
	}
}

// TestABegunPrivateFrameIsKept: a close frame in the middle of another frame
// would be taken for its payload.
func TestABegunPrivateFrameIsKept(t *testing.T) {
	for _, private := range []bool{true, false} {
		o := &outbox{}
		var g gather
		g.add([]byte("first"), private)
		g.add([]byte("second"), private)
		g.moveTo(o, 7, 1)
		o.keepBegun()
		o.pieces(&g, 64)
		if got := string(g.join()); got != "cond" {
			t.Errorf("private %v: kept %q, want the rest of the frame", private, got)
		}
	}
}
