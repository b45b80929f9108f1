package roadrunner

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/wire"
)

// requests are the messages that the PHP SDK reads, by the first entry of the
// header's type. It has sub_refresh where the plug-in says subrefresh.
var requests = map[string]string{
	"connect": "Connect", "refresh": "Refresh", "subscribe": "Subscribe", "publish": "Publish", "rpc": "RPC", "sub_refresh": "SubRefresh",
	"notifycacheempty": "NotifyCacheEmpty",
}

// Question is one call as a worker sees it.
type Question struct {
	Type    string // the first entry of the header's type
	Header  map[string][]string
	Request protoreflect.Message
	// Client is that field of the request, which is empty there: it is another
	// one in each run.
	Client string
}

// Worker is a program that answers as it is told and remembers what it was
// asked. Any goroutine may use it.
type Worker struct {
	t     testing.TB
	proxy *wire.Service

	mu sync.Mutex
	// guarded by mu
	answers map[string]string
	before  map[string]func()
	asked   []Question
}

func newWorker(t testing.TB, proxy *wire.Service) *Worker {
	return &Worker{t: t, proxy: proxy, answers: map[string]string{}, before: map[string]func(){}}
}

// Answer has questions of a type answered with this response, in protobuf's
// text form, from now on.
func (w *Worker) Answer(of, response string) {
	w.t.Helper()
	if _, err := w.proxy.Message(requests[of]+"Response", response); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[of] = response
}

// Before has the program do something before it answers a question of a type.
func (w *Worker) Before(of string, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before[of] = do
}

// exec is what the SDK's worker does with a payload: it finds the request's
// class by the header, has it handled, and sends the response back.
func (w *Worker) exec(p Payload) ([]byte, error) {
	var header map[string][]string
	if err := json.Unmarshal(p.Context, &header); err != nil {
		return nil, fmt.Errorf("the header %s: %w", p.Context, err)
	}
	of := header["type"][0]
	message, ok := requests[of]
	if !ok {
		return nil, fmt.Errorf("request type %s is not supported", of)
	}
	request, err := w.proxy.Read(message+"Request", p.Body)
	if err != nil {
		w.t.Errorf("a question of type %s: %v", of, err)
		return nil, err
	}
	q := Question{Type: of, Header: header, Request: request}
	if client := request.Descriptor().Fields().ByName("client"); client != nil { // a notification is about none
		q.Client = request.Get(client).String()
		request.Clear(client)
	}

	w.mu.Lock()
	w.asked = append(w.asked, q)
	answer, ok := w.answers[of]
	before := w.before[of]
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no handler for %s", of)
	}
	if before != nil {
		before()
	}
	response, err := w.proxy.Message(message+"Response", answer)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(response)
}

// Take gives the questions of a client so far, and forgets them.
func (w *Worker) Take(client string) (taken []Question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = slices.DeleteFunc(w.asked, func(q Question) bool {
		if q.Client == client {
			taken = append(taken, q)
		}
		return q.Client == client
	})
	return taken
}

// Expect waits until a client has asked, and checks that it did so once, with
// this type and this request in protobuf's text form, without its client.
func (w *Worker) Expect(t *testing.T, client, of, request string) Question {
	t.Helper()
	want, err := w.proxy.Message(requests[of]+"Request", request)
	if err != nil {
		t.Fatal(err)
	}
	var asked []Question
	await.Within(t, patience, "a question of type "+of, func() bool {
		asked = append(asked, w.Take(client)...)
		return len(asked) > 0
	})
	q := asked[0]
	if len(asked) != 1 || q.Type != of || !proto.Equal(q.Request.Interface(), want) {
		t.Fatalf("the worker was asked %d times, first %s {%v}, want one %s {%v}", len(asked), q.Type, q.Request, of, want)
	}
	return q
}
