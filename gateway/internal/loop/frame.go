package loop

// Frame is one or more complete WebSocket frames, ready to be written. It is
// immutable and shared: by all its subscribers, by several loops, and by
// connections that are still sending it.
type Frame struct {
	Bytes []byte
}
