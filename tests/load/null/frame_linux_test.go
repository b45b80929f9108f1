package null

import (
	"bytes"
	"testing"

	"github.com/carillon-rt/carillon/tests/load/fleet"
)

func TestFrames(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 300)
	stream := fleet.AppendText(fleet.AppendText(nil, []byte("one")), long)
	first, rest, ok, err := take(stream)
	if !ok || err != nil || first.op != opText || string(first.payload) != "one" {
		t.Fatalf("first frame is %d %q, %v, %v", first.op, first.payload, ok, err)
	}
	for n := range rest {
		if _, _, ok, err := take(rest[:n]); ok || err != nil {
			t.Fatalf("%d of %d bytes were taken for a frame (%v)", n, len(rest), err)
		}
	}
	second, rest, ok, err := take(rest)
	if !ok || err != nil || !bytes.Equal(second.payload, long) || len(rest) != 0 {
		t.Fatalf("second frame has %d bytes, %v, %v, %d bytes are left", len(second.payload), ok, err, len(rest))
	}
	if got := appendFrame(nil, opText, []byte("ab")); string(got) != "\x81\x02ab" {
		t.Errorf("text frame is %q", got)
	}
	if got := appendFrame(nil, opText, long); string(got[:4]) != "\x81\x7e\x01\x2c" {
		t.Errorf("a long text frame begins with %q", got[:4])
	}
}

func TestFramesThatAreNotUnderstood(t *testing.T) {
	for name, b := range map[string]string{
		"no mask":                        "\x81\x04abcd",
		"a fragment":                     "\x01\x80\x00\x00\x00\x00",
		"an extension":                   "\xc1\x80\x00\x00\x00\x00",
		"more than 64 KiB":               "\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00",
		"a ping of more than 125 bytes":  "\x89\xfe\x00\x7e\x00\x00\x00\x00",
		"an operation that is not known": "\x8b\x80\x00\x00\x00\x00",
	} {
		if _, _, ok, err := take([]byte(b)); ok || err == nil {
			t.Errorf("%s is understood", name)
		}
	}
}
