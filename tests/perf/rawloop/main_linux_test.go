package main

import (
	"bytes"
	"testing"

	"github.com/carillon-rt/carillon/tests/perf/client"
)

func TestFrames(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 300)
	stream := client.AppendText(client.AppendText(nil, []byte("one")), long)
	first, rest, ok := frame(stream)
	if !ok || string(first) != "one" {
		t.Fatalf("first frame is %q, %v", first, ok)
	}
	for n := range rest {
		if _, _, ok := frame(rest[:n]); ok {
			t.Fatalf("%d of %d bytes were taken for a frame", n, len(rest))
		}
	}
	second, rest, ok := frame(rest)
	if !ok || !bytes.Equal(second, long) || len(rest) != 0 {
		t.Fatalf("second frame has %d bytes, %v, %d bytes are left", len(second), ok, len(rest))
	}
	if got := text(nil, []byte("ab")); string(got) != "\x81\x02ab" {
		t.Errorf("text frame is %q", got)
	}
	if got := text(nil, long); string(got[:4]) != "\x81\x7e\x01\x2c" {
		t.Errorf("a long text frame begins with %q", got[:4])
	}
}
