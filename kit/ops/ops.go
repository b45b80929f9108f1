// Package ops serves the port that operators and orchestrators look at: health, metrics, profiles and debug pages, and the
// request to drain. It owns the HTTP server and the list of checks; it knows nothing of what the checks and pages are about.
package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 60 * time.Second
	headerBytes   = 16 << 10
	closeTimeout  = 2 * time.Second
)

// Config says where the ops port is.
type Config struct {
	Listen string `yaml:"listen" doc:"address of the ops port: health, metrics, profiles; port 0 picks a free one"`
	Pprof  bool   `yaml:"pprof" doc:"serve /debug/pprof on the ops port"`
}

// DefaultConfig listens on port 7080 of all addresses, with profiles.
func DefaultConfig() Config { return Config{Listen: ":7080", Pprof: true} }

// Validate reports an address that can't be listened on.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen is %q, want host:port or :port", c.Listen)
	}
	return nil
}

type check struct {
	name string
	ask  func() error
}

// Server is the ops port. All methods may be called from any goroutine.
type Server struct {
	// immutable after New
	listener net.Listener
	http     *http.Server
	drain    drain

	mu sync.Mutex
	// guarded by mu
	live, ready []check
	pages       map[string]http.Handler
	starting    bool
	started     bool // every check has passed once
	draining    bool
}

// New binds the ops port; Run serves it.
func New(cfg Config, metrics *telemetry.Metrics) (*Server, error) {
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("bind ops port (ops.listen): %w", err)
	}
	s := &Server{listener: ln, pages: make(map[string]http.Handler), drain: newDrain()}
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", s.serveLive)
	mux.HandleFunc("/healthz", s.serveLive)
	mux.HandleFunc("/readyz", s.serveReady)
	mux.HandleFunc("/startupz", s.serveStartup)
	mux.HandleFunc("/drain", s.serveDrain)
	mux.HandleFunc("/", s.servePage)
	if metrics != nil {
		mux.Handle("/metrics", metrics.Handler())
	}
	if cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		s.pages["/debug/pprof/"] = nil // served by the mux, listed on the index
	}
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
	}
	return s, nil
}

// Addr returns the bound host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Ready adds a named check to /readyz. check is called for each probe, possibly concurrently; it returns nil or what is
// wrong, and must not block: have it look at state, not ask the network.
func (s *Server) Ready(name string, ask func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, check{name, ask})
}

// Live adds a named check to /livez, under the same rules. A failed one gets the process restarted: use it only for what a
// restart cures, never for a dependency that is away.
func (s *Server) Live(name string, ask func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, check{name, ask})
}

// Handle serves h at pattern, a path below /debug/ that is listed on the index; a pattern that ends in a slash takes all
// paths below it. A pattern that is taken is replaced.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[pattern] = h
}

// SetStarting keeps /readyz and /startupz at 503 while the process is still being put together, so that a probe does not
// take a missing check for a passed one.
func (s *Server) SetStarting(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting = on
}

// SetDraining turns /readyz to 503, which takes the process out of its load balancer; /livez stays at 200.
func (s *Server) SetDraining(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = on
}

// Run serves the port until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		s.close()
	})
	err := s.http.Serve(s.listener)
	if !stop() { // the server was closed by the context: wait for the last answers
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve ops port: %w", err)
}

// close lets running requests finish for a moment, then cuts them: a profile can take minutes.
func (s *Server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}

// Close releases the port of a server whose Run is not going to be called.
func (s *Server) Close() error { return s.listener.Close() }
