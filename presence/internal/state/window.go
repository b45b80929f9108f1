package state

import "slices"

// lateMs is how long after a take-over gateways that the membership did not
// show at first are awaited all the same: a node that has just started learns
// of the others one by one.
const lateMs = 10_000

// window is the time after a take-over in which what is known is incomplete.
type window struct {
	waiting map[string]struct{} // nodes that have not reported
	beganMs int64
	endMs   int64
	// gone are nodes that were announced as gone and have not come back: nobody
	// waits for them, and what they bring is new.
	gone map[string]struct{}
}

// goneMax is how many nodes are remembered as gone. One that was forgotten may
// be awaited.
const goneMax = 256

// open begins to wait for nodes.
func (w *window) open(nodes []string, nowMs int64) {
	w.waiting = make(map[string]struct{}, len(nodes))
	for _, node := range nodes {
		w.waiting[node] = struct{}{}
	}
	w.beganMs, w.endMs = nowMs, nowMs+WindowMs
}

// admit waits for one more node, and says whether it is not too late for that.
func (w *window) admit(node string, nowMs int64) bool {
	if nowMs >= w.beganMs+lateMs {
		return false
	}
	if w.waiting == nil {
		w.waiting = make(map[string]struct{})
	}
	w.waiting[node] = struct{}{}
	w.endMs = nowMs + WindowMs
	return true
}

func (w *window) isOpen(nowMs int64) bool { return nowMs < w.endMs && len(w.waiting) > 0 }

// heard ends the wait for a node: it has reported, or never will.
func (w *window) heard(node string) { delete(w.waiting, node) }

// evicted notes that a node was announced as gone.
func (w *window) evicted(node string) {
	w.heard(node)
	if w.gone == nil {
		w.gone = make(map[string]struct{})
	}
	for other := range w.gone {
		if len(w.gone) < goneMax {
			break
		}
		delete(w.gone, other)
	}
	w.gone[node] = struct{}{}
}

// isGone says whether a node was announced as gone.
func (w *window) isGone(node string) bool {
	_, gone := w.gone[node]
	return gone
}

// back notes that a node has reported, and says whether it was announced as
// gone before.
func (w *window) back(node string) bool {
	gone := w.isGone(node)
	delete(w.gone, node)
	return gone
}

// keep ends the wait for all that are not among nodes.
func (w *window) keep(nodes []string) {
	for node := range w.waiting {
		if !slices.Contains(nodes, node) {
			delete(w.waiting, node)
		}
	}
}
