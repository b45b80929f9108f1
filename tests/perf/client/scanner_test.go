package client

import (
	"bytes"
	"testing"
)

// server builds a server's frame.
func server(op byte, payload string) []byte {
	b := AppendText(nil, []byte(payload))
	b[0] = 0x80 | op
	b[1] &= 0x7f
	mask := len(b) - len(payload) - 4
	return append(b[:mask], b[mask+4:]...)
}

func TestScannerCountsWhateverTheReads(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 70_000))
	stream := bytes.Join([][]byte{
		server(1, "one ~"), server(1, ""), server(1, string(bytes.Repeat([]byte("-"), 126))+"~"), // its size holds the mark's byte
		server(9, "~"), server(1, long+"~"), server(1, "~~"),
	}, nil)
	const want = 6
	for size := range 9 {
		var s scanner
		got := 0
		for b := stream; len(b) > 0; {
			n := min(size+1, len(b))
			got += s.scan(b[:n], '~')
			b = b[n:]
		}
		if got != want || s.closes {
			t.Errorf("reads of %d bytes: %d marks, want %d; closes %v", size+1, got, want, s.closes)
		}
	}
}

func TestScannerSeesCloses(t *testing.T) {
	var s scanner
	s.scan(append(server(1, "~"), server(8, "\x03\xe8")...), '~')
	if !s.closes {
		t.Error("a close frame was not seen")
	}
}
