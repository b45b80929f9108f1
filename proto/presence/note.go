package presence

// Note is what the owner of a shard tells the shard's standby, which hears
// the same deltas. It travels as JSON on subject.PresenceNotes(shard), on the
// connection that carried the events before it: who has read the note knows
// that the events are out.
type Note struct {
	// Node and Incarnation are those of the owner.
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	// Version is the last version that the owner gave.
	Version uint64 `json:"version"`
	// Applied are the deltas that were applied and announced since the last
	// note; with Full, the last one of every gateway.
	Applied []Mark `json:"applied,omitempty"`
	// Gone are gateways that were evicted, and that was announced.
	Gone []Mark `json:"gone,omitempty"`
	// Full: a gateway that Applied does not list has nothing in the shard.
	Full bool `json:"full,omitempty"`
	// Released: the owner answers no more; the next one may take over at once.
	Released bool `json:"released,omitempty"`
}

// Mark is a gateway and the number of a delta.
type Mark struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	Seq         uint64 `json:"seq,omitempty"`
}
