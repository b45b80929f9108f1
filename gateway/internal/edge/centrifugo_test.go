package edge

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// answers stands in for what is asked for Centrifugo's clients. A connect
// token is the user's id; "a,b" after a colon are server-side subscriptions.
type answers struct {
	mu sync.Mutex
	// guarded by mu
	asked     []any
	forgets   bool // asked
	submitted []*message.Publication
	position  message.Position // of what is submitted
	members   []presence.Member
	past      *resume.Past
}

// set changes what it answers.
func (a *answers) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *answers) Decide(req any, answer func(authz.Decision)) {
	a.mu.Lock()
	if !a.forgets {
		a.asked = append(a.asked, req)
	}
	a.mu.Unlock()
	d := authz.Decision{Allow: true}
	switch r := req.(type) {
	case *authz.Connect:
		user, subs, _ := strings.Cut(r.Token, ":")
		d.Credentials = &authz.Credentials{User: user}
		for name := range strings.SplitSeq(subs, ",") {
			if d.Credentials.Subs == nil {
				d.Credentials.Subs = map[string]authz.Grant{}
			}
			if name != "" {
				d.Credentials.Subs[name] = authz.Grant{}
			}
		}
	case *authz.Subscribe:
		if r.Token == "" {
			d = authz.Refuse(authz.Forbidden, "a token is needed")
		}
	case *authz.RPC:
		d.Reply = r.Data
	}
	answer(d)
}

func (a *answers) Submit(pub *message.Publication, answer func(message.Position, dialect.Reason)) {
	a.mu.Lock()
	a.submitted = append(a.submitted, pub)
	pos := a.position
	a.mu.Unlock()
	answer(pos, dialect.None)
}

func (a *answers) Members(_ channel.Key, answer func([]presence.Member, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.members == nil {
		answer(nil, errors.New("nobody knows"))
		return
	}
	answer(a.members, nil)
}

func (a *answers) Stream(_ channel.Key, _ resume.Page, answer func(*resume.Past, message.Position, error)) {
	answer(a.kept(), 9, nil)
}

// Past implements History.
func (a *answers) Past(_ resume.Question, answer func(*resume.Past)) { answer(a.kept()) }

func (a *answers) kept() *resume.Past {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.past
}

// startCentrifugo starts an edge for both protocols.
func startCentrifugo(t *testing.T) (*fixture, *answers) {
	t.Helper()
	a := &answers{}
	f := startWith(t, func(cfg *Config) {
		cfg.Answers, cfg.History = a, a
		cfg.Protocols = []Protocol{Pusher(pusher.New("")), Centrifugo(codec.New(codec.JSON)), Centrifugo(codec.New(codec.Protobuf))}
	}, func(settings *app.App) {
		settings.Centrifugo = app.Centrifugo{Enabled: true, RPC: []app.RPC{{Match: "*", Hook: "h"}}}
		settings.Hooks = []app.Hook{{Name: "h", ForwardHeaders: []string{"Origin"}}}
		settings.Policies = []app.Policy{
			{Match: "log*", History: app.History{Size: 10, TTL: time.Hour, Recover: true}, ReadHistory: app.Anyone, Publish: app.Anyone},
			{Match: "both", History: app.History{Size: 10, TTL: time.Hour, Recover: true}, CacheTTL: time.Hour},
			{Match: "room", Presence: true, JoinLeave: true, ReadPresence: app.Anyone},
		}
	})
	return f, a
}

// client connects one with a token.
func (f *fixture) client(token string) *wsClient {
	f.Helper()
	c := f.raw("/connection/websocket")
	c.send(`{"id":1,"connect":{"token":%q}}`, token)
	reply := c.expect(`{"id":1,"connect":{"client":"7.`)
	_, rest, _ := strings.Cut(reply, `"client":"`)
	c.id, _, _ = strings.Cut(rest, `"`)
	return c
}

// join subscribes with command 2.
func (c *wsClient) join(name string) {
	c.t.Helper()
	c.send(`{"id":2,"subscribe":{"channel":%q}}`, name)
	c.expect(`{"id":2,"subscribe":{`)
}

func TestCentrifugo(t *testing.T) {
	f, a := startCentrifugo(t)
	c, p := f.client("42"), f.dial()
	p.subscribe("news")
	c.send("{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}\n{\"id\":3,\"rpc\":{\"method\":\"m\",\"data\":{\"a\":1}}}")
	c.expect(`{"id":2,"subscribe":{}}`)
	c.expect(`{"id":3,"rpc":{"data":{"a":1}}}`)
	f.publish("news", 0, func(pub *message.Publication) { pub.Event, pub.Data = "said", []byte(`{"x":1}`) })
	c.expect(`{"push":{"channel":"news","pub":{"data":{"x":1},"tags":{"event":"said"}}}}`)
	p.expect(`{"event":"said","channel":"news","data":"{\"x\":1}"}`)
	f.publish("news", 0, func(pub *message.Publication) { pub.Event, pub.Exclude = "", c.id })
	p.expect(`"event":"message"`)
	c.send(`{"id":4,"unsubscribe":{"channel":"news"}}`)
	c.expect(`{"id":4,"unsubscribe":{}}`)
	c.send(`{"id":5,"subscribe":{"channel":"$private"}}`)
	c.expect(`{"id":5,"error":{"code":103`)
	info, err := f.edge.Describe(t.Context(), c.id)
	if err != nil || info == nil || info.Dialect != "centrifugo" || info.User != "42" || len(info.Channels) != 0 {
		t.Errorf("described as %+v, %v", info, err)
	}
	if s := f.edge.Stats(); s.Refused[dialect.Unauthorized] != 1 {
		t.Errorf("refused %v", s.Refused)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if req, ok := a.asked[0].(*authz.Connect); !ok || req.ID != c.id || req.App != "1" || req.Transport != "websocket" {
		t.Errorf("asked for %+v", a.asked[0])
	}
}

func TestCentrifugoProtobuf(t *testing.T) {
	f, _ := startCentrifugo(t)
	for name, dial := range map[string]func() (*wsClient, string){
		"subprotocol": func() (*wsClient, string) {
			d := ws.Dialer{Protocols: []string{"centrifuge-protobuf"}}
			conn, _, hs, err := d.Dial(t.Context(), "ws://"+f.addr+"/connection/websocket")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return &wsClient{t: t, conn: conn}, hs.Protocol
		},
		"format": func() (*wsClient, string) {
			return f.raw("/connection/websocket?format=protobuf"), "centrifuge-protobuf"
		},
		"cf_protocol": func() (*wsClient, string) {
			return f.raw("/connection/websocket?cf_protocol=protobuf"), "centrifuge-protobuf"
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, protocol := dial()
			if protocol != "centrifuge-protobuf" {
				t.Errorf("the server confirmed subprotocol %q", protocol)
			}
			c.binary("\x04\x08\x01\x22\x00" + "\x07\x08\x02\x2a\x03\x0a\x01a") // connect, subscribe to a
			if got := c.read(ws.OpBinary); !strings.Contains(got, "carillon") || got[1:4] != "\x08\x01\x2a" {
				t.Fatalf("connect was answered with %q", got)
			}
			if got := c.read(ws.OpBinary); got != "\x04\x08\x02\x32\x00" {
				t.Fatalf("subscribe was answered with %q", got)
			}
			f.publish("a", 0, func(pub *message.Publication) { pub.Event, pub.Data = "", []byte("x") })
			if got := c.read(ws.OpBinary); got != "\x0a\x22\x08\x12\x01a\x22\x03\x22\x01x" {
				t.Fatalf("the publication is %q", got)
			}
			c.send(`{}`) // text is not of this encoding
			c.expectClose(3501)
		})
	}
}

func (c *wsClient) binary(payload string) {
	c.t.Helper()
	if err := wsutil.WriteClientBinary(c.conn, []byte(payload)); err != nil {
		c.t.Fatal(err)
	}
}

// read reads one message of a kind.
func (c *wsClient) read(op ws.OpCode) string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	msg, have, err := wsutil.ReadServerData(c.conn)
	if err != nil || have != op {
		c.t.Fatalf("read %q, opcode %d, %v", msg, have, err)
	}
	return string(msg)
}

func TestCentrifugoServerSubscriptions(t *testing.T) {
	f, a := startCentrifugo(t)
	pub := &message.Publication{Kind: message.Event, Data: []byte("4")}
	a.set(func() {
		a.past = &resume.Past{Epoch: "e", Entries: []resume.Entry{{Position: message.At(4, 0), Publication: pub}}}
	})
	f.edge.Epoch(channel.Key{App: "1", Name: "log"}.Partition(partitions), "e")
	f.publish("log", 5)
	c := f.raw("/connection/websocket")
	c.send(`{"id":1,"connect":{"token":"42:log,plain","subs":{"log":{"recover":true,"epoch":"e","offset":3072}}}}`)
	c.expect(`"subs":{"log":{"recoverable":true,"epoch":"e","publications":[{"data":4,"offset":4096}],"recovered":true,"offset":3072,"positioned":true,"was_recovering":true},"plain":{}}`)
	f.publish("log", 6, func(pub *message.Publication) { pub.Event = "" })
	c.expect(`{"push":{"channel":"log","pub":{"data":6,"offset":6144}}}`)
	c.send(`{"id":2,"history":{"channel":"log","limit":1}}`)
	c.expect(`{"id":2,"history":{"publications":[{"data":4,"offset":4096}],"epoch":"e","offset":9}}`)
	f.edge.Broken(channel.Key{App: "1", Name: "log"}.Partition(partitions))
	c.expectClose(3010)
}

func TestCentrifugoLosesItsPlace(t *testing.T) {
	f, _ := startCentrifugo(t)
	partition := channel.Key{App: "1", Name: "log"}.Partition(partitions)
	f.edge.Epoch(partition, "e")
	c := f.client("42")
	c.join("log")
	f.edge.Broken(partition)
	c.expect(`{"push":{"channel":"log","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
	f.until("it is unsubscribed", func() bool { return f.count(channel.Key{App: "1", Name: "log"}) == 0 })
}

// A client that has lost its place is given the last value, as one that never
// had a place. Nobody is asked for it on behalf of one that recovers.
func TestCentrifugoLastValueOfALostPlace(t *testing.T) {
	f, a := startCentrifugo(t)
	pub := &message.Publication{Kind: message.Event, App: "1", Channel: "both", Data: []byte("6")}
	a.set(func() {
		a.past = &resume.Past{Epoch: "e", Floor: message.At(5, 0), Entries: []resume.Entry{{Position: message.At(6, 0), Publication: pub}}}
	})
	f.edge.Epoch(channel.Key{App: "1", Name: "both"}.Partition(partitions), "e")
	f.publish("both", 6)
	c := f.client("42")
	subscribe := func(id int, since message.Position) {
		c.send(`{"id":%d,"subscribe":{"channel":"both","recover":true,"epoch":"e","offset":%d}}`, id, since)
	}
	subscribe(2, message.At(5, 0))
	c.expect(`{"id":2,"subscribe":{"recoverable":true,"epoch":"e","publications":[{"data":6,"offset":6144}],"recovered":true,"offset":5120,"positioned":true,"was_recovering":true}}`)
	c.send(`{"id":3,"unsubscribe":{"channel":"both"}}`)
	c.expect(`{"id":3,"unsubscribe":{}}`)
	subscribe(4, message.At(4, 0))
	asked := <-f.cluster.caches
	asked.answer(&history.Reply{Epoch: "e", Top: message.At(6, 0), Cached: &history.Entry{Position: message.At(6, 0), Publication: pub.Append(nil)}})
	c.expect(`{"id":4,"subscribe":{"recoverable":true,"epoch":"e","publications":[{"data":6,"offset":6144}],"offset":6144,"positioned":true,"was_recovering":true}}`)
}

// A client gets what it has published before it is told that it is published.
func TestCentrifugoPublishes(t *testing.T) {
	f, a := startCentrifugo(t)
	a.set(func() { a.position = message.At(7, 0) })
	key := channel.Key{App: "1", Name: "log"}
	f.edge.Epoch(key.Partition(partitions), "e")
	f.edge.Start(key.Partition(partitions), message.At(1, 0))
	c := f.client("42")
	c.join("log")
	c.send(`{"id":3,"publish":{"channel":"log","data":{"a":1}}}`)
	f.until("it was submitted", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.submitted) == 1
	})
	pub := *a.submitted[0]
	f.publish("log", 6)
	f.edge.Deliver(key.Partition(partitions), message.At(7, 0), &pub)
	c.expect(`"offset":6144`)
	c.expect(fmt.Sprintf(`{"push":{"channel":"log","pub":{"data":{"a":1},"info":{"user":"42","client":%q},"offset":7168}}}`, c.id))
	c.expect(`{"id":3,"publish":{}}`)
}

func TestCentrifugoPresence(t *testing.T) {
	f, a := startCentrifugo(t)
	c := f.client("42")
	c.send(`{"id":2,"presence":{"channel":"room"}}`)
	c.expect(`{"id":2,"error":{"code":100`)
	c.send(`{"id":3,"subscribe":{"channel":"room","join_leave":true}}`)
	j := <-f.cluster.joins
	if j.m.ID != c.id || j.m.RawID != `"`+c.id+`"` {
		t.Errorf("joins as %+v", j.m)
	}
	j.answer(presence.Result{Version: 1, Members: []presence.Member{j.m}}, nil)
	c.expect(`{"id":3,"subscribe":{}}`)
	c.expect(fmt.Sprintf(`{"push":{"channel":"room","join":{"info":{"user":"42","client":%q}}}}`, c.id))
	info := `{"user":"43","client":"9.9"}`
	f.publish("room", 0, func(pub *message.Publication) {
		pub.Kind, pub.UserID, pub.Data, pub.Version = message.MemberAdded, `"9.9"`, []byte(info), 2
	})
	c.expect(`{"push":{"channel":"room","join":{"info":{"user":"43","client":"9.9"}}}}`)
	f.publish("room", 0, func(pub *message.Publication) {
		pub.Kind, pub.UserID, pub.Data, pub.Version = message.MemberRemoved, `"9.9"`, nil, 3
	})
	c.expect(`{"push":{"channel":"room","leave":{"info":{"user":"43","client":"9.9"}}}}`)
	a.set(func() { a.members = []presence.Member{{ID: "9.9", RawID: `"9.9"`, Info: info}} })
	c.send(`{"id":4,"presence":{"channel":"room"}}`)
	c.expect(`{"id":4,"presence":{"presence":{"9.9":{"user":"43","client":"9.9"}}}}`)
	c.conn.Close()
	f.until("it has left", func() bool { return f.member("left "+c.id) == 1 && f.member("online 42") == 0 })
}

func TestCentrifugoOperations(t *testing.T) {
	f, _ := startCentrifugo(t)
	c, other, p := f.client("42"), f.client("43"), f.dial()
	operate := func(op control.Operation) { f.edge.Control(control.Command{App: "1", Operation: &op}) }
	operate(control.Operation{Select: control.Select{User: "42"}, Subscribe: &control.SubscribeThem{Channel: "news"}})
	c.expect(`{"push":{"channel":"news","subscribe":{}}}`)
	operate(control.Operation{Select: control.Select{Client: c.id}, Unsubscribe: "news"})
	c.expect(`{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
	operate(control.Operation{Select: control.Select{Client: c.id, User: "other"}, Unsubscribe: "news"})
	operate(control.Operation{Select: control.Select{Client: "1.1"}, Unsubscribe: "news"})
	operate(control.Operation{Unsubscribe: "news"})
	operate(control.Operation{Select: control.Select{All: true, Except: []string{other.id}}, Refresh: &authz.Credentials{ExpireAt: time.Now().Unix() + 60}})
	c.expect(`{"push":{"refresh":{"expires":true`)
	operate(control.Operation{Select: control.Select{All: true, Except: []string{c.id}}, Disconnect: &authz.Verdict{Code: 4001, Text: "bye"}})
	other.expectClose(4001)
	p.expect("pusher:error")
	p.expectClose(4009)
	f.edge.Control(control.Command{App: "1", TerminateUser: "42"})
	c.expectClose(3503)
	if s := f.edge.Stats(); s.Operations != [operationsMax]uint64{1, 1, 2, 2} {
		t.Errorf("operations %v", s.Operations)
	}
}

func TestCentrifugoRefusals(t *testing.T) {
	f, _ := startCentrifugo(t)
	for app, says := range map[string]string{
		"nobody":                 `bad request: there is no app "nobody"`,
		strings.Repeat("x", 200): `bad request: there is no app "` + strings.Repeat("x", 40) + `"`,
	} {
		_, err := wsutil.ReadServerText(f.raw("/connection/websocket?app=" + app).conn)
		if closed, ok := err.(wsutil.ClosedError); !ok || closed.Code != 3501 || closed.Reason != says {
			t.Errorf("%s: %v, want %q", app, err, says)
		}
	}
	c := f.client("")
	f.edge.draining.Store(true)
	f.raw("/connection/websocket").expectClose(3001)
	f.edge.draining.Store(false)
	c.binary("\x00")
	c.expectClose(3501)
}

func TestCentrifugoIsTurnedOff(t *testing.T) {
	f := startWith(t, func(cfg *Config) { cfg.Protocols = []Protocol{Centrifugo(codec.New(codec.JSON))} })
	for query, says := range map[string]string{
		"":       "bad request: no app takes Centrifugo clients on this host",
		"?app=1": `bad request: the app "1" takes no Centrifugo clients`,
		"?app=k": `bad request: the app "k" takes no Centrifugo clients`,
	} {
		_, err := wsutil.ReadServerText(f.raw("/connection/websocket" + query).conn)
		if closed, ok := err.(wsutil.ClosedError); !ok || closed.Code != 3501 || closed.Reason != says {
			t.Errorf("%s: %v, want %q", query, err, says)
		}
	}
}

func TestAfter(t *testing.T) {
	in := hub.NewInterest(hub.Config{Loops: 1, Partitions: 1, Room: func() {}})
	var done []int
	note := func(n int) func() { return func() { done = append(done, n) } }
	in.After(0, 10, note(1)) // nobody knows where the partition is
	in.Start(0, 5)
	in.After(0, 5, note(2))
	in.After(0, 7, note(3))
	in.After(0, 6, note(4))
	in.After(0, 9, note(5))
	if len(done) != 2 {
		t.Fatalf("%v are done, want 1 and 2", done)
	}
	pub := &message.Publication{Kind: message.Event, App: "1", Channel: "x"}
	in.Deliver(0, 7, pub)
	in.Deliver(0, 8, pub)
	if fmt.Sprint(done) != "[1 2 3 4]" {
		t.Fatalf("%v are done, want 1 to 4", done)
	}
	in.Lost(0)
	if len(done) != 5 {
		t.Errorf("%v are done, want all", done)
	}
}
