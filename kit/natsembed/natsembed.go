// Package natsembed runs a NATS server with JetStream inside the process. Only the single binary and the tests use it: a service that
// connects to NATS does not carry the server's code.
package natsembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/carillon-rt/carillon/kit/config"
)

const (
	readyTimeout    = 15 * time.Second
	readyPoll       = 100 * time.Millisecond
	shutdownTimeout = 10 * time.Second
)

// Config describes the embedded server.
type Config struct {
	Name         string        `yaml:"name" doc:"server name, stable over restarts and unique in a cluster; empty: carillon, in a cluster the node's name"`
	Dir          string        `yaml:"dir" doc:"directory of JetStream's files"`
	Listen       string        `yaml:"listen" doc:"address for clients outside this process; empty: none, port 0 picks a free one"`
	User         string        `yaml:"user" doc:"user name that clients must give; empty: none"`
	Password     string        `yaml:"password" secret:"true" doc:"password of the user"`
	SyncInterval time.Duration `yaml:"sync_interval" doc:"how often files are flushed to disk: what a power failure can cost"`
	SyncAlways   bool          `yaml:"sync_always" doc:"flush after each write; nothing acknowledged is lost on power failure"`
	MaxStore     config.Bytes  `yaml:"max_store" doc:"limit of all files; 0: three quarters of the disk"`
	MaxMemory    config.Bytes  `yaml:"max_memory" doc:"limit of memory streams; 0: three quarters of the memory"`
	MaxPayload   config.Bytes  `yaml:"max_payload" doc:"largest message"`
	Cluster      ClusterConfig `yaml:"cluster"`

	// Log gets the server's own messages; nil drops them.
	Log *slog.Logger `yaml:"-"`
}

// ClusterConfig joins embedded servers to one cluster. Three or more are needed, with stable names and disks.
type ClusterConfig struct {
	Name   string   `yaml:"name" doc:"cluster name, the same on all; empty: a single server"`
	Listen string   `yaml:"listen" doc:"address for the other servers"`
	Routes []string `yaml:"routes" doc:"nats-route:// URLs of other servers; one that is up suffices"`

	User     string `yaml:"user" doc:"user name that servers give each other, the same on all; empty: any server may join"`
	Password string `yaml:"password" secret:"true" doc:"password of that user"`
}

// DefaultConfig keeps files in ./data/nats and listens nowhere.
func DefaultConfig() Config {
	return Config{Dir: "data/nats", SyncInterval: time.Second, MaxPayload: 1 << 20}
}

// Validate reports what the server would not start with.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("dir is empty, want a directory for JetStream's files")
	}
	if c.Listen != "" {
		if _, _, err := hostPort(c.Listen); err != nil {
			return fmt.Errorf("listen is %q, want host:port", c.Listen)
		}
	}
	if c.SyncInterval <= 0 {
		return fmt.Errorf("sync_interval is %s, want more than 0", c.SyncInterval)
	}
	if c.MaxPayload < 64<<10 || c.MaxPayload > 64<<20 {
		return fmt.Errorf("max_payload is %s, want 64KiB to 64MiB", c.MaxPayload)
	}
	if (c.User == "") != (c.Password == "") {
		return errors.New("user and password go together, only one of them is set")
	}
	return c.Cluster.validate()
}

func (c ClusterConfig) validate() error {
	if c.Name == "" {
		if c.Listen != "" || len(c.Routes) > 0 {
			return errors.New("cluster.name is empty, but cluster.listen or cluster.routes is set: servers of a cluster need one name, the same on all")
		}
		return nil
	}
	if strings.ContainsAny(c.Name, " \t") {
		return fmt.Errorf("cluster.name is %q, want it without spaces", c.Name)
	}
	if _, _, err := hostPort(c.Listen); err != nil {
		return fmt.Errorf("cluster.listen is %q, want host:port for the other servers", c.Listen)
	}
	if len(c.Routes) == 0 {
		return errors.New("cluster.routes is empty, want the nats-route:// URLs of the servers (this one may be among them)")
	}
	if (c.User == "") != (c.Password == "") {
		return errors.New("cluster.user and cluster.password go together, only one of them is set")
	}
	for i, route := range c.Routes {
		if u, err := url.Parse(route); err != nil || u.Host == "" {
			return fmt.Errorf("cluster.routes[%d] is not a route, want such as nats-route://host:6222", i)
		} else if u.Port() == "" {
			return fmt.Errorf("cluster.routes[%d] has no port, want such as nats-route://%s:6222", i, u.Hostname())
		}
	}
	return nil
}

// routes are the URLs of the other servers, with what they want to be told. A user in a URL is left as it is.
func (c ClusterConfig) routes() (urls []*url.URL, err error) {
	for _, route := range c.Routes {
		u, err := url.Parse(route)
		if err != nil {
			return nil, err
		}
		if c.User != "" && u.User == nil {
			u.User = url.UserPassword(c.User, c.Password)
		}
		urls = append(urls, u)
	}
	return urls, nil
}

// hostPort splits an address; port 0 becomes the server's value for "any".
func hostPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, err
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

// Server is a running embedded server. It is a nats.InProcessConnProvider.
type Server struct {
	srv    *server.Server
	healer *healer
}

// Start starts a server and returns when it takes connections. In a cluster JetStream may still be electing then.
func Start(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	failure := make(chan error, 1)
	s := &Server{srv: srv, healer: newHealer(cfg)}
	srv.SetLoggerV2(&logger{log: cfg.Log, fatal: failure, heard: s.healer.heard}, false, false, false)
	srv.Start()
	s.healer.start(srv)
	if err := s.ready(failure); err != nil {
		if cfg.Listen != "" {
			err = fmt.Errorf("embedded.listen is %s: %w", cfg.Listen, err)
		}
		return nil, errors.Join(fmt.Errorf("embedded NATS: %w", err), s.Shutdown())
	}
	return s, nil
}

// ready waits until the server takes connections or gives up.
func (s *Server) ready(failure <-chan error) error {
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); {
		ok := s.srv.ReadyForConnections(readyPoll)
		select {
		case err := <-failure:
			return err
		default:
		}
		if ok {
			return nil
		}
	}
	return fmt.Errorf("not ready in %s", readyTimeout)
}

func options(cfg Config) (*server.Options, error) {
	opts := &server.Options{
		ServerName: cfg.Name, JetStream: true, StoreDir: cfg.Dir, NoSigs: true, NoLog: true,
		SyncInterval: cfg.SyncInterval, SyncAlways: cfg.SyncAlways,
		JetStreamMaxStore: maxOrAuto(cfg.MaxStore), JetStreamMaxMemory: maxOrAuto(cfg.MaxMemory),
		MaxPayload: int32(cfg.MaxPayload), Username: cfg.User, Password: cfg.Password,
		DontListen: cfg.Listen == "",
	}
	if opts.ServerName == "" {
		opts.ServerName = "carillon"
	}
	var err error
	if cfg.Listen != "" {
		if opts.Host, opts.Port, err = hostPort(cfg.Listen); err != nil {
			return nil, err
		}
	}
	if cfg.Cluster.Name == "" {
		return opts, nil
	}
	opts.Cluster.Name = cfg.Cluster.Name
	if opts.Cluster.Host, opts.Cluster.Port, err = hostPort(cfg.Cluster.Listen); err != nil {
		return nil, err
	}
	opts.Cluster.Username, opts.Cluster.Password = cfg.Cluster.User, cfg.Cluster.Password
	if opts.Routes, err = cfg.Cluster.routes(); err != nil {
		return nil, err
	}
	return opts, nil
}

// maxOrAuto turns 0 into the server's value for "find out yourself".
func maxOrAuto(n config.Bytes) int64 {
	if n == 0 {
		return -1
	}
	return int64(n)
}

// InProcessConn connects to the server without a socket.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// ClientURL returns the URL for clients outside the process, empty when it does not listen.
func (s *Server) ClientURL() string {
	if s.srv.Addr() == nil {
		return ""
	}
	return s.srv.ClientURL()
}

// ClusterAddr returns the host:port of the route listener, empty without a cluster.
func (s *Server) ClusterAddr() string {
	if addr := s.srv.ClusterAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// NumRoutes returns the number of route connections to other servers.
func (s *Server) NumRoutes() int { return s.srv.NumRoutes() }

// Clustered reports whether the server stores in a cluster, and, when it does, whether that cluster can take writes (has a leader that
// this server follows); a single server always can.
func (s *Server) Clustered() (clustered, ready bool) {
	if !s.srv.JetStreamIsClustered() {
		return false, s.srv.JetStreamEnabled()
	}
	return true, s.srv.JetStreamIsCurrent() || s.srv.JetStreamIsLeader()
}

// Run blocks until ctx ends, then shuts the server down.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	return s.Shutdown()
}

// Shutdown hands the leadership of this server's streams to others, which pauses them for 15-50 ms instead of the 4-9 s of an
// election, and stops. Files are flushed. A second call does nothing.
func (s *Server) Shutdown() error {
	s.healer.end()
	s.stepDown()
	s.srv.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.srv.WaitForShutdown()
	}()
	timer := time.NewTimer(shutdownTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return fmt.Errorf("embedded NATS: not stopped in %s", shutdownTimeout)
	}
}

func (s *Server) stepDown() {
	if !s.srv.Running() || !s.srv.JetStreamIsClustered() {
		return
	}
	info, err := s.srv.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return
	}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			if s.srv.JetStreamIsStreamLeader(account.Name, stream.Name) {
				// Without peers to hand over to this fails, and the election does it.
				_ = s.srv.JetStreamStepdownStream(account.Name, stream.Name)
			}
		}
	}
}
