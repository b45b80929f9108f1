package centrifugoapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/centrifugo/apipb"
)

const (
	// streamsMax bounds the calls under way of one connection.
	streamsMax       = 1 << 10
	handshakeTimeout = 5 * time.Second
	// pingLeast is how often a client may ask whether the server lives: more
	// often than gRPC's default, as clients behind proxies do.
	pingLeast = 10 * time.Second
)

// GRPCConfig is the port of the API over gRPC.
type GRPCConfig struct {
	Listen string `yaml:"listen" doc:"address of the Centrifugo server API over gRPC, such as 127.0.0.1:10000; empty: none"`
	// KeylessApp is for clients that can't send keys, such as RoadRunner.
	KeylessApp string `yaml:"keyless_app" doc:"id of the app that callers without an API key speak for; only on a loopback address or with client_ca; empty: every call needs a key"`
	// RoadRunnerDisconnect is for its PHP client up to 2.x, whose disconnect
	// arrives as an unsubscribe with the bytes of the other request.
	RoadRunnerDisconnect bool `yaml:"roadrunner_disconnect" doc:"take an unsubscribe that names neither user nor client for a disconnect of the user that stands in place of its channel, as PHP clients of RoadRunner send it"`

	Cert     string `yaml:"cert" doc:"file with the certificate chain (PEM); with it the port speaks TLS; read again at each handshake"`
	Key      string `yaml:"key" doc:"file with the certificate's private key (PEM)"`
	ClientCA string `yaml:"client_ca" doc:"file with the authorities (PEM) of client certificates, which callers then need; needs cert"`
}

// Validate says what is wrong and what would be right.
func (c GRPCConfig) Validate() error {
	if c.Listen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen is %q, want host:port, :port or nothing", c.Listen)
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("cert and key go together, only one of them is set")
	}
	if c.ClientCA != "" && c.Cert == "" {
		return errors.New("client_ca needs cert and key")
	}
	return nil
}

// tls gives the TLS settings, nil for none.
func (c GRPCConfig) tls() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	out := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}
	if c.ClientCA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	out.ClientAuth, out.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client_ca: %s holds no certificate in PEM", c.ClientCA)
	}
	return out, nil
}

// Server is the API over gRPC.
type Server struct {
	// immutable after Listen
	cfg      GRPCConfig
	core     *Core
	keys     *Keys
	apps     *app.Registry
	grace    time.Duration
	listener net.Listener
	server   *grpc.Server
	tracer   trace.Tracer
	metrics  *metrics
}

// Listen binds the port. Requests may have bodyMax bytes; grace is how long
// the calls under way may take when the server stops.
func Listen(cfg GRPCConfig, core *Core, keys *Keys, bodyMax int, grace time.Duration, tracer trace.TracerProvider, reg prometheus.Registerer) (*Server, error) {
	settings, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, core: core, keys: keys, apps: keys.apps, grace: grace, tracer: tracer.Tracer("carillon/api/centrifugo"),
		metrics: newMetrics(reg, "centrifugo_grpc"),
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("bind gRPC port: %w", err)
	}
	if err := s.checkKeyless(); err != nil {
		_ = s.listener.Close()
		return nil, err
	}
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.intercept), grpc.UnknownServiceHandler(s.unknown), grpc.MaxRecvMsgSize(bodyMax),
		grpc.MaxConcurrentStreams(streamsMax), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingLeast, PermitWithoutStream: true}),
	}
	if settings != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(settings)))
	}
	s.server = grpc.NewServer(options...)
	apipb.RegisterCentrifugoApiServer(s.server, &service{core: core, metrics: s.metrics, roadRunner: cfg.RoadRunnerDisconnect})
	return s, nil
}

// checkKeyless refuses to be open to all.
func (s *Server) checkKeyless() error {
	id := s.cfg.KeylessApp
	if id == "" {
		return nil
	}
	if s.apps.ByID(id) == nil {
		return fmt.Errorf("keyless_app is %q, want the id of an app", id)
	}
	at, _ := s.listener.Addr().(*net.TCPAddr)
	if s.cfg.ClientCA == "" && (at == nil || !at.IP.IsLoopback()) {
		return fmt.Errorf("keyless_app lets everybody in who reaches %s: listen on a loopback address such as 127.0.0.1:10000, or set client_ca",
			s.listener.Addr())
	}
	return nil
}

// Addr is the bound host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends; then it takes no more calls and waits for those
// under way.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timer := time.AfterFunc(s.grace, s.server.Stop)
		defer timer.Stop()
		s.server.GracefulStop()
	})
	err := s.server.Serve(s.listener)
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC port: %w", err)
	}
	return nil
}

// Close gives the port back of a server that has never run.
func (s *Server) Close() error { return s.listener.Close() }

// caller is on whose behalf a call is, and how it wants to hear of errors.
type caller struct {
	app             *app.App
	transportErrors bool
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// authenticate finds out whose call it is. The error is a status.
func (s *Server) authenticate(ctx context.Context) (caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(name string) string {
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	key, sent := apiKey(first("authorization"))
	if !sent {
		key = first("x-api-key")
		sent = key != ""
	}
	a := s.keys.App(key)
	if !sent && s.cfg.KeylessApp != "" {
		a = s.apps.ByID(s.cfg.KeylessApp)
	}
	switch {
	case a == nil:
		s.metrics.failed(codeUnauthorized)
		return caller{}, status.Error(codes.Unauthenticated, "unauthorized: send a key of an app's centrifugo.api_keys as metadata authorization: apikey <key>")
	case a.Disabled:
		s.metrics.failed(codePermissionDenied)
		return caller{}, status.Errorf(codes.PermissionDenied, "permission denied: app %s is disabled", a.ID)
	}
	return caller{app: a, transportErrors: strings.EqualFold(first("x-centrifugo-error-mode"), "transport")}, nil
}

// intercept stands around every call.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	start, name := s.core.deps.Now(), methodName(info.FullMethod)
	defer func() {
		if p := recover(); p != nil { // of one call, not of all
			s.core.deps.Log.ErrorContext(ctx, "call panicked", "call", name, "panic", p, "stack", string(debug.Stack()))
			resp, err = nil, status.Error(codes.Internal, "internal server error")
		}
		s.metrics.done(name, httpStatus(err), s.core.deps.Now().Sub(start))
	}()
	c, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if tp := md.Get("traceparent"); len(tp) > 0 {
		ctx = telemetry.ContextWithTraceparent(ctx, tp[0])
	}
	ctx, span := s.tracer.Start(context.WithValue(ctx, callerKey{}, c), "centrifugo "+name, trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	return handle(ctx, req)
}

// httpStatus is the status that metrics give an outcome: one scale for all
// APIs.
func httpStatus(err error) int {
	switch status.Code(err) {
	case codes.OK:
		return 200
	case codes.Unauthenticated:
		return 401
	case codes.PermissionDenied:
		return 403
	case codes.NotFound, codes.Unimplemented:
		return 404
	case codes.AlreadyExists:
		return 409
	case codes.ResourceExhausted:
		return 429
	case codes.InvalidArgument, codes.OutOfRange:
		return 400
	}
	return 500
}

// unknown answers methods that are not served: those that Carillon knows of in
// the form of all others, as every response begins with its error.
func (s *Server) unknown(_ any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	name := methodName(full)
	if _, known := absent[name]; !known || !strings.HasPrefix(full, "/"+apipb.CentrifugoApi_ServiceDesc.ServiceName+"/") {
		return status.Errorf(codes.Unimplemented, "unknown method %s", clip(full))
	}
	c, err := s.authenticate(stream.Context())
	if err != nil {
		return err
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	refused := notOffered(name)
	s.metrics.failed(refused.Code)
	if c.transportErrors {
		return status.Error(codeOf(refused), refused.Message)
	}
	return stream.SendMsg(&apipb.ErrorOnly{Error: errorPB(refused)})
}

// methodName turns "/centrifugal.centrifugo.api.CentrifugoApi/PresenceStats"
// into presence_stats.
func methodName(full string) string {
	name := full[strings.LastIndexByte(full, '/')+1:]
	if name == strings.ToUpper(name) { // RPC
		return strings.ToLower(name)
	}
	var out strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}
