package natsembed

import (
	"testing"
)

// The server tells in words only that it could not write for want of room.
func TestHearsOfAFullDisk(t *testing.T) {
	for message, full := range map[string]bool{
		"JetStream resource limits exceeded: write 1.blk: no space left on device": true,
		"JetStream failed to store a msg: write 1.blk: disk quota exceeded":        true,
		"JetStream failed to store a msg: write 1.blk: input/output error":         false,
	} {
		h := newHealer(DefaultConfig())
		h.heard(message)
		if got := len(h.failed) > 0; got != full {
			t.Errorf("%q: full %v, want %v", message, got, full)
		}
	}
}
