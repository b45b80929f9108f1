package loop

import "sync/atomic"

// Stats is a snapshot of a loop's counters. All but the first four only
// grow.
type Stats struct {
	Connections  int64 // sockets, handshakes and closes under way included
	Overflowing  int64 // sockets above ConnectionsMax that are being refused
	MailboxDepth int64
	OutboxBytes  int64 // that clients have not read, as of the last turn

	Accepted     int64
	Opened       int64           // WebSocket upgrades, streams, and clients that poll
	Closed       map[Cause]int64 // opened connections that ended, by cause
	HandedOver   int64           // to net/http
	Answered     int64           // requests that were not refused
	Refused      int64           // requests answered with an error status
	Dropped      int64           // connections closed without an answer: far above ConnectionsMax
	HeadTimeouts int64
	BytesIn      int64
	BytesOut     int64
	MessagesIn   int64
	Writes       int64 // system calls that wrote
	WouldBlock   int64 // writes that the kernel did not take whole
	SlowBytes    int64 // closed as slow for OutboxBytesMax
	SlowAge      int64 // closed as slow for OutboxAgeMax
	SlowMemory   int64 // closed as slow for MemoryMax
	MailRefused  int64
	Panics       int64
	Turns        int64
	Slices       int64 // input taken in the middle of a flush
	// TurnTimeMax is the longest turn in nanoseconds, the wait left out,
	// since the last snapshot.
	TurnTimeMax int64
}

// counters are what Stats is read from: every field atomic, written by the
// loop.
type counters struct {
	connections, overflowing              atomic.Int64
	accepted, opened, handedOver          atomic.Int64
	answered                              atomic.Int64
	refused, dropped, headTimeouts        atomic.Int64
	bytesIn, bytesOut, messagesIn, writes atomic.Int64
	wouldBlock, slowBytes, slowAge        atomic.Int64
	slowMemory, outboxBytes               atomic.Int64
	panics, turns, slices, turnTimeMax    atomic.Int64
	closed                                [causes]atomic.Int64
}

// turnCounts are counted plainly during a turn and published at its end: an
// atomic addition per write would show.
type turnCounts struct {
	bytesIn, bytesOut, messagesIn, writes, slices int64
}

// publish adds a turn's counts.
func (c *counters) publish(t *turnCounts, nanoseconds int64) {
	c.turns.Add(1)
	if nanoseconds > c.turnTimeMax.Load() {
		c.turnTimeMax.Store(nanoseconds)
	}
	addCount(&c.bytesIn, t.bytesIn)
	addCount(&c.bytesOut, t.bytesOut)
	addCount(&c.messagesIn, t.messagesIn)
	addCount(&c.writes, t.writes)
	addCount(&c.slices, t.slices)
	*t = turnCounts{}
}

func addCount(c *atomic.Int64, n int64) {
	if n != 0 {
		c.Add(n)
	}
}

// snapshot reads the counters and starts TurnTimeMax anew.
func (c *counters) snapshot() Stats {
	s := Stats{
		Connections: c.connections.Load(), Overflowing: c.overflowing.Load(),
		Accepted: c.accepted.Load(), Opened: c.opened.Load(), HandedOver: c.handedOver.Load(),
		Answered: c.answered.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(), HeadTimeouts: c.headTimeouts.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), MessagesIn: c.messagesIn.Load(),
		Writes: c.writes.Load(), WouldBlock: c.wouldBlock.Load(),
		SlowBytes: c.slowBytes.Load(), SlowAge: c.slowAge.Load(), SlowMemory: c.slowMemory.Load(),
		OutboxBytes: c.outboxBytes.Load(), Panics: c.panics.Load(),
		Turns: c.turns.Load(), Slices: c.slices.Load(), TurnTimeMax: c.turnTimeMax.Swap(0),
		Closed: make(map[Cause]int64, causes),
	}
	for cause := range causes {
		s.Closed[cause] = c.closed[cause].Load()
	}
	return s
}
