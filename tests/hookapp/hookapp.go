// Package hookapp is an application that Carillon asks through its hooks, over
// HTTP, gRPC and NATS alike. What it answers is up to whoever asks: a client
// writes the answer into its data.
package hookapp

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"

	"github.com/carillon-rt/carillon/tests/wire"
)

// bodyMax is how much of a request is read.
const bodyMax = 1 << 20

// App is the application. It answers any number of requests at a time.
//
// A question about a channel whose name has "refused" in it is answered with
// an error. One whose data has "answer" is answered with that. refresh and
// sub_refresh have no data: their answers are what the connection's meta has
// under these names. In answers, "expire_in" stands for an "expire_at" in so
// many seconds. A call of the method "asked" gets the list of questions about
// that client so far, and any other call gets the request itself.
type App struct {
	t testing.TB

	mu sync.Mutex
	// guarded by mu
	asked map[string][]string // by client
}

// New makes an application that nothing reaches yet.
func New(t testing.TB) *App { return &App{t: t, asked: map[string][]string{}} }

// question has the fields of all requests that the application looks at.
type question struct {
	Client  string
	Channel string
	Method  string
	Data    json.RawMessage
	Meta    map[string]json.RawMessage
}

// answer answers a question of a kind such as sub_refresh; request and answer
// are JSON.
func (a *App) answer(kind string, request []byte) []byte {
	var q question
	if err := json.Unmarshal(request, &q); err != nil {
		a.t.Errorf("a %s hook got %s: %v", kind, request, err)
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if kind == "rpc" && q.Method == "asked" {
		return result(a.asked[q.Client])
	}
	a.asked[q.Client] = append(a.asked[q.Client], kind)
	if strings.Contains(q.Channel, "refused") {
		return []byte(`{"error":{"code":1003,"message":"not yours"}}`)
	}
	script := q.Meta[kind]
	if script == nil {
		var data struct{ Answer json.RawMessage }
		_ = json.Unmarshal(q.Data, &data) // data need not be an object
		script = data.Answer
	}
	switch {
	case script != nil:
		return dated(script)
	case kind == "rpc":
		return result(json.RawMessage(request))
	}
	return []byte(`{}`)
}

// result answers a call.
func result(data any) []byte {
	raw, err := json.Marshal(map[string]any{"result": map[string]any{"data": data}})
	if err != nil {
		return nil
	}
	return raw
}

// dated puts times in for durations.
func dated(script json.RawMessage) []byte {
	var v map[string]any
	if json.Unmarshal(script, &v) != nil {
		return script // an answer that makes no sense is asked for
	}
	if res, ok := v["result"].(map[string]any); ok {
		if in, ok := res["expire_in"].(float64); ok {
			delete(res, "expire_in")
			res["expire_at"] = time.Now().Unix() + int64(in)
		}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return script
	}
	return raw
}

// HTTP serves the application over HTTP and gives its URL.
func (a *App) HTTP() string {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, bodyMax))
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.answer(r.Header.Get("Carillon-Hook"), body))
	})}
	l := a.serve(func(l net.Listener) { _ = server.Serve(l) }, func() { _ = server.Close() })
	return "http://" + l + "/hooks"
}

// GRPC serves the application over gRPC and gives its URL.
func (a *App) GRPC() string {
	a.t.Helper()
	g := &grpcApp{app: a, proxy: wire.Proxy(a.t)}
	server := grpc.NewServer(grpc.UnknownServiceHandler(g.serve))
	l := a.serve(func(l net.Listener) { _ = server.Serve(l) }, server.Stop)
	return "grpc://" + l
}

// serve runs a server until the test ends, and gives its address.
func (a *App) serve(run func(net.Listener), stop func()) string {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(l)
	}()
	a.t.Cleanup(func() {
		stop()
		<-done
	})
	return l.Addr().String()
}

// NATS has the application answer requests on a subject.
func (a *App) NATS(url, subject string) {
	a.t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(nc.Close)
	_, err = nc.QueueSubscribe(subject, "app", func(m *nats.Msg) {
		_ = m.Respond(a.answer(m.Header.Get("Carillon-Hook"), m.Data))
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		a.t.Fatal(err)
	}
}
