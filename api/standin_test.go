package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	key     = "278d425bdf160c739803"
	secret  = "7ad3773142a6692b25b8"
	key2    = "rotated-key"
	secret2 = "rotated-secret"
)

func apps() []app.App {
	return []app.App{
		{
			ID: "3", Keys: []app.Key{{Key: key, Secret: secret}, {Key: key2, Secret: secret2}, {Key: "off-key", Secret: "x", Disabled: true}, {Key: "open-key"}},
			Policies: []app.Policy{{Match: "durable-*", History: app.History{Size: 10, TTL: time.Minute}}},
		},
		{ID: "4", Disabled: true, Keys: []app.Key{{Key: "key-of-4", Secret: "secret-of-4"}}},
		{ID: "5", Keys: []app.Key{{Key: "key-of-5", Secret: "secret-of-5"}}, AlwaysCount: true},
		{ID: "6", Keys: []app.Key{{Key: "key-of-6", Secret: "secret-of-6"}}, Limits: app.Limits{PublishesPerSecond: 1}},
		centrifugoApp("7", "api-key"), centrifugoApp("8", "api-key-of-8"), centrifugoApp("9", "api-key-of-9"),
	}
}

// fixture is an API on real NATS with stand-ins for router, presence and history.
type fixture struct {
	t    testing.TB
	nats *natstest.TestServer
	deps service.Deps
	api  *api.API
	addr string

	mu sync.Mutex
	// guarded by mu
	published []message.Publication
	refuse    *publisher.Error
	occupied  []presence.ChannelInfo
	partial   bool
	cached    map[string]string
	kept      []history.Entry // of every channel
	asked     map[int]int     // presence queries by shard
}

func start(t testing.TB, options ...func(*api.Config)) *fixture {
	t.Helper()
	return startTraced(t, noop.NewTracerProvider(), options...)
}

func startTraced(t testing.TB, tracer trace.TracerProvider, options ...func(*api.Config)) *fixture {
	t.Helper()
	return startAs(t, []string{"api"}, tracer, options...)
}

// startAs starts an API in a node that has other roles, too.
func startAs(t testing.TB, roles []string, tracer trace.TracerProvider, options ...func(*api.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, nats: natstest.Server(t), cached: map[string]string{}, asked: map[int]int{}}
	f.deps = f.nats.Deps(t, "api-1", roles...)
	f.deps.Tracer = tracer
	cfg := api.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	for _, o := range options {
		o(&cfg)
	}
	registry, err := app.NewRegistry(apps())
	if err != nil {
		t.Fatal(err)
	}
	if f.api, err = api.New(cfg, f.deps, registry); err != nil {
		t.Fatal(err)
	}
	f.addr = f.api.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.api.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	awaitQueue(t, f.deps.NATS.Live)
	return f
}

// awaitQueue waits until the API has created its streams: a NATS server that is stopped in the middle of that leaves files open.
func awaitQueue(t testing.TB, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	await.True(t, "the webhook queue", func() bool {
		_, err := js.Consumer(context.Background(), subject.HookStream, "api")
		return err == nil
	})
}

func (f *fixture) subscribe(subj string, handle func(*nats.Msg)) {
	f.t.Helper()
	nc := f.deps.NATS.Live
	if _, err := nc.QueueSubscribe(subj, subject.Queue, handle); err != nil {
		f.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
}

// router answers publish requests and remembers the publications.
func (f *fixture) router() *fixture {
	f.subscribe(subject.AnyRouterPublish, func(msg *nats.Msg) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var receipts []publisher.Receipt
		r := message.NewReader(msg.Data)
		for p := (message.Publication{}); r.Next(&p); p = (message.Publication{}) {
			receipt := publisher.Receipt{Position: message.At(1, r.Index())}
			if f.refuse != nil {
				receipt = publisher.Receipt{Err: f.refuse}
			}
			f.published = append(f.published, p)
			receipts = append(receipts, receipt)
		}
		_ = msg.Respond(publisher.AppendReply(nil, "epoch", receipts))
	})
	return f
}

// presence answers queries from f.occupied, two channels to a page.
func (f *fixture) presence() *fixture {
	f.subscribe("car.pres.*.query", func(msg *nats.Msg) {
		f.mu.Lock()
		defer f.mu.Unlock()
		shard, _ := strconv.Atoi(strings.Split(msg.Subject, ".")[2])
		f.asked[shard]++
		var q presence.Query
		if err := json.Unmarshal(msg.Data, &q); err != nil {
			f.t.Errorf("presence query: %v", err)
		}
		answer, _ := json.Marshal(f.answer(shard, q))
		_ = msg.Respond(answer)
	})
	return f
}

func (f *fixture) answer(shard int, q presence.Query) presence.Answer {
	answer := presence.Answer{Incomplete: f.partial}
	for _, c := range f.occupied {
		if (channel.Key{App: q.App, Name: c.Name}).Shard(subject.PresenceShards) != shard || q.App != "3" && q.App != "5" && q.App != "7" {
			continue
		}
		if !q.Members {
			c.Members = nil
		}
		if q.All && strings.HasPrefix(c.Name, q.Prefix) && c.Name > q.After || c.Name == q.Channel {
			if len(answer.Channels) == 2 {
				answer.More = true
				break
			}
			answer.Channels = append(answer.Channels, c)
		}
	}
	return answer
}

// history answers cache reads from f.cached.
func (f *fixture) history() *fixture {
	f.subscribe("car.hist.*", func(msg *nats.Msg) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var q history.Request
		if err := json.Unmarshal(msg.Data, &q); err != nil {
			f.t.Errorf("history request: %v", err)
		}
		if want := subject.History(channel.Key{App: q.App, Name: q.Channel}.Partition(4)); msg.Subject != want {
			f.t.Errorf("history of %s asked on %s, want %s", q.Channel, msg.Subject, want)
		}
		reply := history.Reply{Epoch: "epoch", Top: 9 << 10}
		if q.Limit > 0 {
			reply.Entries = f.between(&q)
		}
		if data, ok := f.cached[q.Channel]; ok && q.Cache {
			p := message.Publication{Kind: message.Event, App: q.App, Channel: q.Channel, Event: "e", Data: []byte(data)}
			reply.Cached, reply.CachedTTL = &history.Entry{Position: 1, Publication: p.Append(nil)}, 17
		}
		answer, _ := json.Marshal(reply)
		_ = msg.Respond(answer)
	})
	return f
}

// between gives the entries that a request asks for. mu is held.
func (f *fixture) between(q *history.Request) (out []history.Entry) {
	for _, e := range f.kept {
		if e.Position > q.Since && (q.Before == 0 || e.Position < q.Before) {
			out = append(out, e)
		}
	}
	switch {
	case len(out) <= q.Limit:
		return out
	case q.Oldest:
		return out[:q.Limit]
	}
	return out[len(out)-q.Limit:]
}

// keep has the history hold one more publication.
func (f *fixture) keep(at message.Position, p message.Publication) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = append(f.kept, history.Entry{Position: at, Publication: p.Append(nil)})
}

// occupy sets the occupied channels, sorted as the owners do.
func (f *fixture) occupy(infos ...presence.ChannelInfo) {
	slices.SortFunc(infos, func(a, b presence.ChannelInfo) int { return strings.Compare(a.Name, b.Name) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.occupied = infos
}

// counted is how many of the requests to Pusher's API were answered with a status.
func (f *fixture) counted(status int) (n float64) {
	f.t.Helper()
	families, err := f.deps.Metrics.(prometheus.Gatherer).Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := m.GetLabel() // code and dialect, if it is this one
			if family.GetName() == "carillon_api_requests_total" && labels[0].GetValue() == strconv.Itoa(status) && labels[1].GetValue() == "pusher" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func (f *fixture) take() []message.Publication {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.published
	f.published = nil
	return out
}

// request is what an SDK would sign and send.
type request struct {
	method, path string
	query        string // further parameters as they go onto the wire, k=v&...
	body         string
	header       string // further header lines, each ending in \r\n

	key, secret string
	time        int64  // auth_timestamp, 0 is now
	signPath    string // path that is signed, "" is path
	signBody    bool   // body_md5 although the body is empty
	noMD5       bool
	version     string
	signature   string // instead of the right one
	signQuery   string // further parameters as signed, "" is query
}

// wire is the bytes of the request.
func (r request) wire() string {
	if r.key == "" {
		r.key, r.secret = key, secret
	}
	if r.time == 0 {
		r.time = time.Now().Unix()
	}
	if r.version == "" {
		r.version = "1.0"
	}
	if r.signPath == "" {
		r.signPath = r.path
	}
	own := []string{"auth_key=" + r.key, "auth_timestamp=" + strconv.FormatInt(r.time, 10), "auth_version=" + r.version}
	if (r.body != "" || r.signBody) && !r.noMD5 {
		own = append(own, "body_md5="+signature.BodyMD5([]byte(r.body)))
	}
	sent, signed := slices.Clone(own), slices.Clone(own)
	if r.query != "" {
		sent = append(sent, strings.Split(r.query, "&")...)
	}
	if r.signQuery == "" {
		r.signQuery = r.query
	}
	if r.signQuery != "" {
		signed = append(signed, strings.Split(r.signQuery, "&")...)
	}
	slices.Sort(signed)
	if r.signature == "" {
		r.signature = signature.Sign(r.secret, signature.Request(r.method, r.signPath, strings.Join(signed, "&")))
	}
	sent = append(sent, "auth_signature="+r.signature)
	return fmt.Sprintf("%s %s?%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s",
		r.method, r.path, strings.Join(sent, "&"), len(r.body), r.header, r.body)
}

// response is what comes back.
type response struct {
	status int
	body   string
	header http.Header
}

func (f *fixture) do(r request) response {
	f.t.Helper()
	return f.raw(r.wire())
}

func (f *fixture) raw(wire string) response {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, wire); err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response{resp.StatusCode, string(body), resp.Header}
}
