package hook

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
)

// heard is a request as an application's server got it; bodies of gRPC come as
// JSON.
type heard struct {
	path    string
	headers map[string]string
	body    string
}

// backend is an application's server of one of the three kinds.
type backend struct {
	url   string
	reply atomic.Pointer[reply]

	mu sync.Mutex
	// guarded by mu
	heard []heard
}

// reply is what the server does next. Its body is JSON, also for gRPC.
type reply struct {
	body   string
	raw    []byte // instead of body, for gRPC
	status int    // 0 is success; HTTP's number for each kind
	hang   chan struct{}
}

func (b *backend) says(r reply) { b.reply.Store(&r) }

func (b *backend) hears(h heard) reply {
	b.mu.Lock()
	b.heard = append(b.heard, h)
	b.mu.Unlock()
	r := *b.reply.Load()
	if r.hang != nil {
		<-r.hang
	}
	return r
}

func (b *backend) requests() []heard {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]heard(nil), b.heard...)
}

func httpBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := heard{path: r.Method + " " + r.URL.Path, headers: map[string]string{}, body: string(body)}
		for name := range r.Header {
			h.headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		say := b.hears(h)
		if say.status >= 300 && say.status < 400 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(max(say.status, 200))
		_, _ = io.WriteString(w, say.body)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL + "/hook"
	return b
}

func natsBackend(t testing.TB, nc *nats.Conn) *backend {
	t.Helper()
	b := &backend{url: "nats:hooks.test"}
	sub, err := nc.Subscribe("hooks.test", func(msg *nats.Msg) {
		h := heard{headers: map[string]string{}, body: string(msg.Data)}
		for name := range msg.Header {
			h.headers[strings.ToLower(name)] = msg.Header.Get(name)
		}
		go func() { // so that one that hangs does not hold up the others
			say := b.hears(h)
			out := nats.NewMsg(msg.Reply)
			out.Data = []byte(say.body)
			if say.status != 0 {
				out.Header.Set(errorHeader, "500")
			}
			_ = nc.PublishMsg(out)
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return b
}

// grpcBackend reads and writes messages with the descriptors of proxyFile,
// which know nothing of our structs.
func grpcBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	messages := proxyFile(t)
	srv := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		kind := method[strings.LastIndexByte(method, '/')+1:]
		var in []byte
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		h := heard{path: method, headers: map[string]string{}, body: messages.toJSON(t, kind+"Request", in)}
		md, _ := metadata.FromIncomingContext(stream.Context())
		for name, values := range md {
			h.headers[name] = values[0]
		}
		say := b.hears(h)
		switch {
		case say.status == http.StatusTooManyRequests:
			return gstatus.Error(codes.ResourceExhausted, "hidden")
		case say.status >= 500:
			return gstatus.Error(codes.Unavailable, "hidden")
		case say.status != 0:
			return gstatus.Error(codes.Unimplemented, "hidden")
		}
		out := say.raw
		if out == nil {
			out = messages.fromJSON(t, kind+"Response", say.body)
		}
		return stream.SendMsg(&out)
	}))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	b.url = "grpc://" + lis.Addr().String()
	return b
}

// world is a client and one backend of each kind.
type world struct {
	client   *Client
	log      *bytes.Buffer
	now      *atomic.Int64 // milliseconds
	backends map[string]*backend
}

func newWorld(t *testing.T) *world {
	t.Helper()
	leaktest.Check(t)
	conns := natstest.Server(t).Conns(t)
	w := &world{log: &bytes.Buffer{}, now: &atomic.Int64{}}
	w.now.Store(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC).UnixMilli())
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return w.log.Write(p)
	}), nil))
	w.client = New(conns.Req, log, nil, func() time.Time { return time.UnixMilli(w.now.Load()) })
	t.Cleanup(func() {
		if err := w.client.Close(); err != nil {
			t.Error(err)
		}
	})
	w.backends = map[string]*backend{"http": httpBackend(t), "grpc": grpcBackend(t), "nats": natsBackend(t, conns.Req)}
	return w
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (w *world) pass(d time.Duration) { w.now.Add(d.Milliseconds()) }

// link passes bytes on to a server, until it falls silent: then the connections
// that there are stay open and carry nothing. New ones work.
type link struct {
	net.Listener
	target string
	wait   sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	silent []*atomic.Bool
	conns  []net.Conn
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Listener: lis, target: target}
	l.wait.Go(l.accept)
	t.Cleanup(func() {
		_ = lis.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.wait.Wait()
	})
	return l
}

func (l *link) addr() string { return l.Addr().String() }

func (l *link) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.silent {
		s.Store(true)
	}
}

func (l *link) accept() {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		silent := &atomic.Bool{}
		l.mu.Lock()
		l.silent, l.conns = append(l.silent, silent), append(l.conns, near, far)
		l.mu.Unlock()
		l.wait.Go(func() { pass(far, near, silent) })
		l.wait.Go(func() { pass(near, far, silent) })
	}
}

func pass(to, from net.Conn, silent *atomic.Bool) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if silent.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
