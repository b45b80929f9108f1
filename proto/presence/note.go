package presence

// Note is what the owner of a shard tells the shard's standby, which hears
// the same deltas; or what a node that is to become the owner asks (Claim). It
// travels as JSON on subject.PresenceNotes(shard), on the connection that
// carried the events before it: who has read the note knows that the events
// are out.
type Note struct {
	// Node and Incarnation are those of the sender.
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	// Owner: the sender owns the shard.
	Owner bool `json:"owner,omitempty"`
	// Version is the last version that the owner gave.
	Version uint64 `json:"version"`
	// Applied are the deltas that the owner has applied and announced since the
	// last note; with Full, the last one of every gateway.
	Applied []Mark `json:"applied,omitempty"`
	// Gone are gateways that were evicted, and that was announced.
	Gone []Mark `json:"gone,omitempty"`
	// Full: a gateway that Applied does not list has nothing in the shard.
	Full bool `json:"full,omitempty"`
	// Next: the owner answers no more, and this node is to take over at once.
	Next string `json:"next,omitempty"`
	// Claim: by the membership the sender is to become the owner. Applied lists
	// the gateways that it knows wholly. An owner that is alive says so at once.
	Claim bool `json:"claim,omitempty"`
	// Ready: of a Claim, all gateways have reported to the sender; the present
	// owner may release.
	Ready bool `json:"ready,omitempty"`
}

// Mark is a gateway and the number of a delta.
type Mark struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	Seq         uint64 `json:"seq,omitempty"`
	// Refused are the indices of the delta's Join operations that met a full
	// channel.
	Refused []int `json:"refused,omitempty"`
}
