package state

import "slices"

// window is the time after a take-over in which what is known is incomplete.
type window struct {
	waiting map[string]struct{} // nodes that have not reported
	endMs   int64
}

// open begins to wait for nodes.
func (w *window) open(nodes []string, nowMs int64) {
	w.waiting = make(map[string]struct{}, len(nodes))
	for _, node := range nodes {
		w.waiting[node] = struct{}{}
	}
	w.endMs = nowMs + WindowMs
}

func (w *window) isOpen(nowMs int64) bool { return nowMs < w.endMs && len(w.waiting) > 0 }

// heard ends the wait for a node: it has reported, or never will.
func (w *window) heard(node string) { delete(w.waiting, node) }

// keep ends the wait for all that are not among nodes.
func (w *window) keep(nodes []string) {
	for node := range w.waiting {
		if !slices.Contains(nodes, node) {
			delete(w.waiting, node)
		}
	}
}
