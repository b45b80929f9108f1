// Package record is what a chaos run writes down: everything that publishers
// did and were answered, that subscribers saw, and that was broken, one entry
// after the other. The order of the entries is the order of their recording:
// what stands behind another entry began later, or was noticed later. It knows
// nothing of what is right.
package record

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Kind says what an entry is about.
type Kind string

// Kinds, with the fields that they use.
const (
	// Publish: Actor is about to send ID to Channel; Keyed: with an idempotency
	// key, again and again until it is acknowledged, else once.
	Publish Kind = "publish"
	// Acknowledged: the server has said that it took ID. Attempts failed before.
	Acknowledged Kind = "acknowledged"
	// Unknown: nobody knows what became of ID; it is not sent again.
	Unknown Kind = "unknown"
	// Refused: the server will never take ID, and says why in Text.
	Refused Kind = "refused"
	// Final: ID was published when everything had been mended.
	Final Kind = "final"

	// Connected: Actor has a new connection, Session, to the gateway in Text.
	Connected Kind = "connected"
	// Asked: Session is about to ask for Channel, as User where it has members.
	Asked Kind = "asked"
	// Subscribed: Session was told that it gets Channel; on a presence channel
	// it is there as User, and Users is the roster. Resumed: it asked to go on
	// behind Position, and was told that it gets everything from there on.
	Subscribed Kind = "subscribed"
	// Event: Session got ID on Channel.
	Event Kind = "event"
	// Added and Removed: Session was told so about User on Channel.
	Added   Kind = "added"
	Removed Kind = "removed"
	// Closed: Session is over, because Actor wanted it (Left) or for what Text
	// says.
	Closed Kind = "closed"

	// Gone: Actor is not going to connect again.
	Gone Kind = "gone"

	// Fault: Text was done to the cluster. Hard: connections may end by it.
	Fault Kind = "fault"
	// Mended: everything that was broken is well, until the next Fault.
	Mended Kind = "mended"
	// Stalled: the machine stood still, for what Text says, which is nobody's
	// fault and breaks as much as some.
	Stalled Kind = "stalled"
	// Counts: API node Text was asked for Channel in question Round of the run,
	// at Since, and said that it has Count subscriptions and, where it has
	// members, UserCount users, and that they are Users; or it did not say that,
	// for what Why says.
	Counts Kind = "counts"
	// Died: process Text ended, and nobody had ended it.
	Died Kind = "died"
	// Journal: the stream has ID on Channel at Position. These entries come in
	// the order of their positions, when the run is over.
	Journal Kind = "journal"
	// Roster: at the end API node Text says that Users are on Channel.
	Roster Kind = "roster"
)

// Entry is one thing that happened. Fields that its kind does not use are
// empty.
type Entry struct {
	Microseconds int64    `json:"us"` // since the start of the run
	Kind         Kind     `json:"kind"`
	Actor        string   `json:"actor,omitempty"`
	Session      int      `json:"session,omitempty"` // numbered from 1, never used again
	Channel      string   `json:"channel,omitempty"`
	ID           string   `json:"id,omitempty"`
	Keyed        bool     `json:"keyed,omitempty"`
	Attempts     int      `json:"attempts,omitempty"`
	User         string   `json:"user,omitempty"`
	Users        []string `json:"users,omitempty"`
	Position     uint64   `json:"position,omitempty"`
	Resumed      bool     `json:"resumed,omitempty"`
	Left         bool     `json:"left,omitempty"`
	Text         string   `json:"text,omitempty"`
	Hard         bool     `json:"hard,omitempty"`
	Round        int      `json:"round,omitempty"`
	Since        int64    `json:"since,omitempty"` // as Microseconds
	Count        int      `json:"count,omitempty"`
	UserCount    int      `json:"user_count,omitempty"`
	Why          string   `json:"why,omitempty"`
}

// Recorder collects entries. Any goroutine may use it.
type Recorder struct {
	// immutable after New
	start time.Time

	mu sync.Mutex
	// guarded by mu
	entries []Entry
}

// New starts the clock of a run.
func New() *Recorder { return &Recorder{start: time.Now()} }

// Now is how long the run has been going on.
func (r *Recorder) Now() time.Duration { return time.Since(r.start) }

// Add writes an entry down, with the time.
func (r *Recorder) Add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Microseconds = r.Now().Microseconds()
	r.entries = append(r.entries, e)
}

// Entries gives what there is so far; it must not be changed.
func (r *Recorder) Entries() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[:len(r.entries):len(r.entries)]
}

// Write writes entries as JSON, one a line.
func Write(w io.Writer, entries []Entry) error {
	b := bufio.NewWriter(w)
	out := json.NewEncoder(b)
	for i := range entries {
		if err := out.Encode(&entries[i]); err != nil {
			return fmt.Errorf("write the record: %w", err)
		}
	}
	return b.Flush()
}

// Read reads what Write wrote.
func Read(r io.Reader) (entries []Entry, err error) {
	in := json.NewDecoder(r)
	in.DisallowUnknownFields()
	for {
		var e Entry
		if err := in.Decode(&e); err == io.EOF {
			return entries, nil
		} else if err != nil {
			return nil, fmt.Errorf("entry %d of the record: %w", len(entries), err)
		}
		entries = append(entries, e)
	}
}
