package stamp_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carillon-rt/carillon/tests/load/stamp"
)

func TestFindsWhatWasAppended(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []stamp.Stamp{
		{},
		{Lane: 1, Channel: 2, Seq: 3, At: 4},
		{Lane: stamp.LanesMax - 1, Channel: stamp.ChannelsMax - 1, Seq: math.MaxUint32, At: math.MaxInt64},
		{Lane: r.IntN(stamp.LanesMax), Channel: r.IntN(stamp.ChannelsMax), Seq: r.Uint32(), At: r.Int64()},
	} {
		b := stamp.Append([]byte(`{"data":"`), s)
		if got := len(b) - len(`{"data":"`); got != stamp.Size {
			t.Errorf("a stamp of %d bytes, want %d", got, stamp.Size)
		}
		if got, ok := stamp.Find(append(b, `xx"}`...)); !ok || got != s {
			t.Errorf("found %+v %v, want %+v", got, ok, s)
		}
	}
}

func TestNoStamp(t *testing.T) {
	for _, b := range []string{"", "~", "nothing here", "~0123456789abcdef0123456789abcde"} {
		if s, ok := stamp.Find([]byte(b)); ok {
			t.Errorf("%q: found %+v", b, s)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	msg := stamp.Append([]byte(`{"event":"message","channel":"bench","data":"`), stamp.Stamp{Lane: 1, Channel: 2, Seq: 3, At: 4})
	for b.Loop() {
		stamp.Find(msg)
	}
}
