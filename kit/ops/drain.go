package ops

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// drain is the request to leave, and its outcome.
type drain struct {
	begin chan struct{} // closed when somebody has asked
	ended chan struct{} // closed when err is readable
	err   error

	beginOnce, endOnce sync.Once
}

func newDrain() drain {
	return drain{begin: make(chan struct{}), ended: make(chan struct{})}
}

// DrainAsked is closed when somebody on this host has asked the process to
// drain (POST /drain).
func (s *Server) DrainAsked() <-chan struct{} { return s.drain.begin }

// Drained says how the drain ended, to whoever waits for it at /drain. Only
// the first call counts.
func (s *Server) Drained(err error) {
	s.drain.endOnce.Do(func() {
		s.drain.err = err
		close(s.drain.ended)
	})
}

// serveDrain begins the drain and answers when it has ended: 200, or 500 with
// what went wrong. Asking again waits for the same drain. Whoever goes away
// meanwhile does not stop it.
//
// There is no password: only this host may ask, which whoever can signal the
// process does from, and no page of a browser, which always names its origin.
func (s *Server) serveDrain(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST drains the process", http.StatusMethodNotAllowed)
		return
	case !local(r.RemoteAddr) || r.Header.Get("Origin") != "":
		http.Error(w, "only this host may ask for a drain: run carillon drain there, or send SIGTERM", http.StatusForbidden)
		return
	}
	s.drain.beginOnce.Do(func() { close(s.drain.begin) })
	select {
	case <-s.drain.ended:
	case <-r.Context().Done():
		return
	}
	if err := s.drain.err; err != nil {
		http.Error(w, fmt.Sprintf("drained, not everything went well: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "drained")
}

// local says whether a peer is on this host: its address is loopback.
func local(peer string) bool {
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
