package fossil

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

const applyMax = 1 << 20

func TestAppend(t *testing.T) {
	long := "The quick brown fox jumps over the lazy dog, and then it rests for a day."
	for _, c := range []struct{ name, source, target, want string }{
		{"nothing", "", "", "0\n0;"},
		{"short", "abc", "abd", "3\n3:abd1XOG00;"},
		{"the same", long, long, "19\n19@0,2uTc_K;"},
		{"one byte in the middle", long, long[:20] + "X" + long[21:], "19\nK@0,1:Xp@L,2m5BIK;"},
		{"longer", "", long[:16], "G\nG:The quick brown 2Uf5PZ;"},
	} {
		got := string(Append(nil, []byte(c.source), []byte(c.target)))
		back, err := Apply([]byte(c.source), []byte(got), applyMax)
		if err != nil || string(back) != c.target {
			t.Errorf("%s: %q becomes %q by %q, %v", c.name, c.source, back, got, err)
		}
		if !strings.HasPrefix(got, c.want[:strings.LastIndexAny(c.want, ",:\n")+1]) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// From the description of the format: what other programs write and expect.
func TestApplyKnown(t *testing.T) {
	source := "line 1\nline 2\nline 3\n"
	for _, c := range []struct{ delta, want string }{
		{"L\n7@0,7:line X\n7@E,1dOO3C;", ""}, // a wrong sum
		{"L\nL@0,", ""},
		{"", ""},
		{"L", ""},
		{"~~~~~~~\n0;", ""},
		{"L\nL@1,0;", ""},
		{"L\nL:x", ""},
		{"1\n1:ab0;", ""},
		{"1\n1:a1XW000;x", ""},
		{"1\n1:a1X00000;", ""},
	} {
		if got, err := Apply([]byte(source), []byte(c.delta), applyMax); err == nil {
			t.Errorf("%q gives %q, want an error", c.delta, got)
		}
	}
	if _, err := Apply([]byte(source), Append(nil, []byte(source), []byte(source)), 10); !errors.Is(err, ErrFormat) {
		t.Errorf("a result over the limit: %v", err)
	}
	if _, err := Apply([]byte(strings.ToUpper(source)), Append(nil, []byte(source), []byte(source)), applyMax); !errors.Is(err, ErrSource) {
		t.Errorf("of another source: %v", err)
	}
}

// A change of a few bytes costs a few bytes.
func TestDeltaIsSmall(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{100, 1000, 10_000, 200_000} {
		source := make([]byte, size)
		for i := range source {
			source[i] = byte('a' + r.IntN(26))
		}
		target := bytes.Clone(source)
		copy(target[size/2:], "changed")
		target = append(target[:size/4], append([]byte("inserted"), target[size/4:]...)...)
		if d := Append(nil, source, target); len(d) > 90 {
			t.Errorf("%d bytes for two changes of %d", len(d), size)
		}
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), []byte("0123456789abcdeX0123456789abcdef"))
	f.Add([]byte("ääääääääääääääääääää"), []byte("ääääääöäääääääääääää"))
	f.Add([]byte(`{"user":"ž","n":12345678,"list":[1,2,3]}`), []byte(`{"user":"Ž","n":12345678,"list":[1,2,3,4]}`))
	f.Fuzz(func(t *testing.T, source, target []byte) {
		d := Append(nil, source, target)
		back, err := Apply(source, d, applyMax)
		if err != nil || !bytes.Equal(back, target) {
			t.Fatalf("%q to %q by %q: %q, %v", source, target, d, back, err)
		}
		if utf8.Valid(source) && utf8.Valid(target) && !utf8.Valid(d) {
			t.Fatalf("%q to %q by %q, which is not UTF-8", source, target, d)
		}
	})
}

// Nothing that comes as a delta breaks Apply, or makes it give more than it may.
func FuzzApply(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("G\nG@0,2Uf5PZ;"))
	f.Add([]byte("x"), []byte("1\n1:a1XW000;"))
	f.Fuzz(func(t *testing.T, source, delta []byte) {
		if out, err := Apply(source, delta, 1000); err == nil && len(out) > 1000 {
			t.Fatalf("%d bytes", len(out))
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	source := []byte(strings.Repeat(`{"id":123456,"price":"17.25","name":"something"},`, 20))
	target := bytes.Replace(source, []byte("17.25"), []byte("17.26"), 1)
	buf := make([]byte, 0, 4096)
	b.SetBytes(int64(len(target)))
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], source, target)
	}
}
