package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// onlineTries is how often an owner is asked who is online.
const onlineTries = 2

// WhoIsOnline asks the owners of the users' shards at once and answers with
// those of users that are online; answer is called exactly once, on any
// goroutine. If one owner can't be asked the answer is an error.
func (r *Roster) WhoIsOnline(app string, users []string, answer func(online []string, err error)) {
	byShard := map[int][]string{}
	for _, u := range users {
		shard := onlineKey(app, u).Shard(subject.PresenceShards)
		byShard[shard] = append(byShard[shard], u)
	}
	if len(byShard) == 0 {
		answer(nil, nil)
		return
	}
	m := &merge{left: len(byShard), answer: answer}
	for shard, some := range byShard {
		body, err := json.Marshal(presence.Query{App: app, Online: some})
		if err != nil { // strings only: it can't be
			m.add(nil, err)
			continue
		}
		r.askOnline(subject.PresenceQuery(shard), body, onlineTries, m)
	}
}

func (r *Roster) askOnline(subj string, body []byte, tries int, m *merge) {
	r.deps.Ask.Ask(subj, body, r.cfg.RequestTimeout, func(data []byte, err error) {
		var a presence.Answer
		if err == nil {
			err = json.Unmarshal(data, &a)
		}
		if err == nil && a.Error != "" {
			err = errors.New(a.Error)
		}
		if err != nil && tries > 1 {
			r.askOnline(subj, body, tries-1, m)
			return
		}
		m.add(a.Online, err)
	})
}

// merge joins the answers of several owners.
type merge struct {
	answer func(online []string, err error) // immutable

	mu sync.Mutex
	// guarded by mu
	left   int
	online []string
	err    error
}

func (m *merge) add(online []string, err error) {
	m.mu.Lock()
	m.online = append(m.online, online...)
	if err != nil {
		m.err = err
	}
	m.left--
	done := m.left == 0
	m.mu.Unlock()
	switch {
	case !done:
	case m.err != nil:
		m.answer(nil, fmt.Errorf("ask who is online: %w", m.err))
	default:
		m.answer(m.online, nil)
	}
}
