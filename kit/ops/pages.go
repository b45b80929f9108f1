package ops

import (
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

var (
	errStarting = errors.New("still starting")
	errDraining = errors.New("draining")
)

func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	checks := slices.Clone(s.live)
	s.mu.Unlock()
	answer(w, r, ask(checks))
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	answer(w, r, s.askReady())
}

// serveStartup answers 200 for good once readiness was reached: a dependency that goes away later is not a failed start.
func (s *Server) serveStartup(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	if started {
		answer(w, r, nil)
		return
	}
	answer(w, r, s.askReady())
}

type result struct {
	name string
	err  error
}

func (s *Server) askReady() []result {
	s.mu.Lock()
	checks := slices.Clone(s.ready)
	starting, draining := s.starting, s.draining
	s.mu.Unlock()
	results := ask(checks)
	if starting {
		results = append(results, result{"starting", errStarting})
	}
	if draining {
		results = append(results, result{"draining", errDraining})
	}
	if !failed(results) {
		s.mu.Lock()
		s.started = true
		s.mu.Unlock()
	}
	return results
}

func ask(checks []check) []result {
	results := make([]result, 0, len(checks)+2)
	for _, c := range checks {
		results = append(results, result{c.name, c.ask()})
	}
	return results
}

func failed(results []result) bool {
	return slices.ContainsFunc(results, func(r result) bool { return r.err != nil })
}

// answer writes ok, or the checks when one failed or ?verbose is asked for.
func answer(w http.ResponseWriter, r *http.Request, results []result) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	bad := failed(results)
	if bad {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if bad || r.URL.Query().Has("verbose") {
		for _, res := range results {
			if res.err != nil {
				fmt.Fprintf(w, "[-] %s: %v\n", res.name, res.err)
				continue
			}
			fmt.Fprintf(w, "[+] %s ok\n", res.name)
		}
	}
	if !bad {
		io.WriteString(w, "ok\n")
	}
}

// servePage serves the registered pages: the exact path first, then the longest pattern that ends in a slash.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	s.mu.Lock()
	h := s.pages[path]
	for at := len(path) - 1; h == nil && at > 0; at-- {
		if path[at] == '/' {
			h = s.pages[path[:at+1]]
		}
	}
	s.mu.Unlock()
	switch {
	case h != nil:
		h.ServeHTTP(w, r)
	case path == "/" || path == "/debug" || path == "/debug/":
		s.serveIndex(w)
	default:
		http.Error(w, "no such page; /debug/ lists what there is", http.StatusNotFound)
	}
}

func (s *Server) serveIndex(w http.ResponseWriter) {
	s.mu.Lock()
	patterns := slices.Sorted(maps.Keys(s.pages))
	s.mu.Unlock()
	patterns = append([]string{"/livez", "/readyz?verbose", "/startupz", "/metrics"}, patterns...)
	var page strings.Builder
	page.WriteString("<!doctype html><title>ops</title><h1>ops</h1><ul>\n")
	for _, p := range patterns {
		p = html.EscapeString(p)
		fmt.Fprintf(&page, "<li><a href=\"%s\">%s</a></li>\n", p, p)
	}
	page.WriteString("</ul>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, page.String())
}
