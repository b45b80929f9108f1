package edge

import (
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// A socket id is "node.connection", two decimal numbers as every Pusher SDK
// demands: the node's number (one run of one node) and the connection's
// handle packed into 64 bits: generation, loop, slot.
const (
	slotBits = 24
	loopBits = 8
)

func socketID(node uint32, h loop.Handle) string {
	buf := make([]byte, 0, 31)
	buf = strconv.AppendUint(buf, uint64(node), 10)
	buf = append(buf, '.')
	return string(strconv.AppendUint(buf, packed(h), 10))
}

func packed(h loop.Handle) uint64 {
	return uint64(h.Gen)<<(slotBits+loopBits) | uint64(h.Loop)<<slotBits | uint64(h.Slot)
}

// parseSocketID gives node and handle of a socket id.
func parseSocketID(id string) (node uint32, h loop.Handle, ok bool) {
	first, second, found := strings.Cut(id, ".")
	n, err1 := strconv.ParseUint(first, 10, 32)
	packed, err2 := strconv.ParseUint(second, 10, 64)
	if !found || err1 != nil || err2 != nil {
		return 0, loop.Handle{}, false
	}
	return uint32(n), unpacked(packed), true
}

func unpacked(packed uint64) loop.Handle {
	return loop.Handle{
		Slot: int32(packed & (1<<slotBits - 1)),
		Loop: int32(packed >> slotBits & (1<<loopBits - 1)),
		Gen:  uint32(packed >> (slotBits + loopBits)),
	}
}

// resolve gives the connection of a socket id of this run of this node.
func (e *Edge) resolve(id string) (loop.Handle, bool) {
	node, h, ok := parseSocketID(id)
	if !ok || node != e.cfg.NodeNumber || int(h.Loop) >= len(e.handlers) {
		return loop.Handle{}, false
	}
	return h, true
}
