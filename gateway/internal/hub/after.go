package hub

import "github.com/carillon-rt/carillon/proto/message"

// after is something to be done once a position has been delivered.
type after struct {
	pos message.Position
	do  func()
}

// After calls do once everything of a partition up to pos has been posted to
// the loops, or when it is lost: what do posts stands after it. do is called
// under the partition's lock, at once or by the deliverer, and must not block.
func (in *Interest) After(partition int, pos message.Position, do func()) {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.place.Position >= pos || s.place.Epoch == "" && s.place.Position == 0 {
		do()
		return
	}
	s.after = append(s.after, after{pos, do})
}

// pass calls those that have waited for pos, or for less.
func (s *shard) pass(pos message.Position) {
	if len(s.after) == 0 {
		return
	}
	waiting := s.after[:0]
	for _, a := range s.after {
		if a.pos > pos {
			waiting = append(waiting, a)
			continue
		}
		a.do()
	}
	clear(s.after[len(waiting):])
	if s.after = waiting; len(waiting) == 0 {
		s.after = nil
	}
}
