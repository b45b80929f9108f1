package ws

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
)

// clientFrame is a masked frame as a client sends it.
func clientFrame(first byte, payload []byte) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	out := []byte{first}
	n := len(payload)
	switch {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n <= 0xffff:
		out = append(out, 0x80|126, byte(n>>8), byte(n))
	default:
		out = append(out, 0x80|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	out = append(out, mask[:]...)
	masked := bytes.Clone(payload)
	gobwas.Cipher(masked, mask, 0)
	return append(out, masked...)
}

// transcript reads stream in the chunks that cut returns, and writes down
// what came out.
func transcript(stream []byte, messageBytesMax int, cut func(rest int) int) []string {
	d := NewDecoder(messageBytesMax)
	var r Reader
	var out []string
	for len(stream) > 0 {
		n := min(max(cut(len(stream)), 1), len(stream))
		chunk := bytes.Clone(stream[:n])
		stream = stream[n:]
		for len(chunk) > 0 {
			ev, used, err := r.Next(d, chunk)
			if err != nil {
				return append(out, fmt.Sprintf("error %d", asError(err).Code))
			}
			chunk = chunk[used:]
			if ev.Op != 0 {
				out = append(out, fmt.Sprintf("%d %d %x", ev.Op, ev.Code, ev.Payload))
			} else if len(chunk) > 0 && used == 0 {
				panic("no progress")
			}
		}
	}
	if r.Idle() {
		return append(out, "idle")
	}
	return append(out, "partial")
}

func asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		panic(err)
	}
	return e
}

func TestReaderDeliversWholeFramesWithoutCopying(t *testing.T) {
	in := clientFrame(0x81, []byte("hello"))
	d := NewDecoder(100)
	var r Reader
	allocs := testing.AllocsPerRun(100, func() {
		copy(in, clientHello)
		ev, used, err := r.Next(d, in)
		if err != nil || used != len(in) || string(ev.Payload) != "hello" {
			t.Fatalf("got %q, %d, %v", ev.Payload, used, err)
		}
		if &ev.Payload[0] != &in[6] {
			t.Fatal("payload was copied")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a whole frame, want 0", allocs)
	}
	if !r.Idle() {
		t.Error("reader holds a buffer after a whole frame")
	}
}

var clientHello = clientFrame(0x81, []byte("hello"))

func TestReaderReleasesItsBufferAtOnce(t *testing.T) {
	d := NewDecoder(1 << 20)
	var r Reader
	in := clientFrame(0x82, make([]byte, 70_000))
	if ev, _, err := r.Next(d, in[:1000]); ev.Op != 0 || err != nil || r.Idle() {
		t.Fatalf("got %v, %v, idle %v from a partial frame", ev.Op, err, r.Idle())
	}
	ev, used, err := r.Next(d, in[1000:])
	if err != nil || used != len(in)-1000 || len(ev.Payload) != 70_000 {
		t.Fatalf("got %d bytes, used %d, %v", len(ev.Payload), used, err)
	}
	if !r.Idle() {
		t.Error("reader holds the buffer of a delivered message")
	}
}

func TestReaderDoesNotTrustDeclaredLength(t *testing.T) {
	d := NewDecoder(1 << 30)
	var r Reader
	in := []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}
	if _, _, err := r.Next(d, in); err != nil {
		t.Fatal(err)
	}
	if c := cap(r.partial.message); c > 1024 {
		t.Errorf("%d bytes reserved for a message of which 1 byte arrived", c)
	}
}

func TestReaderIsIndifferentToChunks(t *testing.T) {
	streams := map[string][]byte{
		"text":                  clientFrame(0x81, []byte("grüße €𝄞")),
		"fragmented with ping":  bytes.Join([][]byte{clientFrame(0x01, []byte("gr\xc3")), clientFrame(0x89, []byte("p")), clientFrame(0x80, []byte("\xbc\xc3\x9fe"))}, nil),
		"bad utf-8 late":        clientFrame(0x81, []byte(strings.Repeat("a", 300)+"\xff")),
		"truncated character":   clientFrame(0x81, []byte("a\xe2\x82")),
		"surrogate":             clientFrame(0x81, []byte("\xed\xa0\x80")),
		"long binary and close": append(clientFrame(0x82, make([]byte, 66_000)), clientFrame(0x88, []byte("\x03\xe8bye"))...),
		"rsv":                   clientFrame(0xc1, nil),
		"too big":               clientFrame(0x82, make([]byte, 70_001)),
	}
	for name, stream := range streams {
		t.Run(name, func(t *testing.T) {
			want := transcript(stream, 70_000, func(rest int) int { return rest })
			for _, size := range []int{1, 2, 3, 5, 7, 64, 1000} {
				got := transcript(stream, 70_000, func(int) int { return size })
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("in chunks of %d: %.200v, in one: %.200v", size, got, want)
				}
			}
		})
	}
}

// FuzzReader: any stream, cut in any way, gives what it gives in one chunk.
func FuzzReader(f *testing.F) {
	f.Add(clientFrame(0x81, []byte("grüße")), []byte{1, 2})
	f.Add(append(clientFrame(0x01, []byte("a")), clientFrame(0x80, []byte("b"))...), []byte{3})
	f.Add(append(clientFrame(0x89, []byte("p")), clientFrame(0x88, []byte("\x03\xe8x"))...), []byte{5, 1, 200})
	f.Add([]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, []byte{9})
	f.Add(clientFrame(0x82, make([]byte, 300)), []byte{250, 1})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		const messageBytesMax = 4096
		want := transcript(stream, messageBytesMax, func(rest int) int { return rest })
		i := 0
		got := transcript(stream, messageBytesMax, func(int) int {
			if len(cuts) == 0 {
				return 1
			}
			i++
			return int(cuts[i%len(cuts)])
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in chunks %v\nin one    %v", got, want)
		}
	})
}

func FuzzAppendClose(f *testing.F) {
	f.Add(1000, "bye")
	f.Add(1005, strings.Repeat("ü", 100))
	f.Fuzz(func(t *testing.T, code int, reason string) {
		frame := AppendClose(nil, code, reason)
		if len(frame) > 2+125 {
			t.Fatalf("close frame of %d bytes", len(frame))
		}
		ev, err := closeEvent(frame[2:])
		if err != nil {
			t.Fatalf("our own close frame is refused: %v", err)
		}
		if !strings.HasPrefix(reason, string(ev.Payload)) {
			t.Fatalf("reason %q became %q", reason, ev.Payload)
		}
	})
}
