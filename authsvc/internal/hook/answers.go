package hook

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// answersMax and answersBytesMax bound the cached answers of all hooks.
	answersMax      = 10_000
	answersBytesMax = 64 << 20
)

// key names a question.
type key = [sha256.Size]byte

// answers are those that are given again. Those that nobody has asked for
// longest go first.
type answers struct {
	mu sync.Mutex
	// guarded by mu
	kept  *simplelru.LRU[key, answer]
	bytes int // of all bodies
}

// answer is a cached one.
type answer struct {
	body  []byte
	until time.Time
}

func newAnswers() *answers {
	a := &answers{}
	kept, err := simplelru.NewLRU(answersMax, func(_ key, gone answer) { a.bytes -= len(gone.body) })
	if err != nil {
		panic("hook: " + err.Error()) // the size is a constant
	}
	a.kept = kept
	return a
}

// get gives the answer to a question, if there is one that is still good.
func (a *answers) get(k key, now time.Time) (body []byte, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.kept.Get(k)
	if ok && !now.Before(known.until) {
		a.kept.Remove(k)
		return nil, false
	}
	return known.body, ok
}

func (a *answers) keep(k key, body []byte, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept.Remove(k) // so that its bytes are given back
	a.kept.Add(k, answer{body, until})
	for a.bytes += len(body); a.bytes > answersBytesMax; {
		a.kept.RemoveOldest()
	}
}

func (a *answers) drop(k key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept.Remove(k)
}
