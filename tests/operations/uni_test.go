package operations

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// push is what unidirectional clients of Centrifugo's protocol are told.
type push struct {
	Channel     string
	Connect     *connectPush
	Pub         *publication
	Subscribe   *struct{}
	Unsubscribe *struct{}
	Refresh     *struct{ TTL int }
	Disconnect  *struct {
		Code      int
		Reason    string
		Reconnect bool
	}
}

type connectPush struct {
	Client string
	Ping   int
	Subs   map[string]struct {
		Recoverable, Recovered bool
		Epoch                  string
		Offset                 uint64
		Publications           []publication
	}
}

type publication struct {
	Data   json.RawMessage
	Offset uint64
}

// listener is a client that only listens. It gives up after client.Patience.
type listener struct {
	next  func() ([]byte, error)
	close func()
}

// uniTransports begin a listener at a gateway, with a ConnectRequest.
var uniTransports = map[string]func(t *testing.T, gateway *env.Node, request string) (*listener, error){
	"uni_websocket":   socketListener,
	"uni_sse":         eventListener,
	"uni_http_stream": lineListener,
}

func socketListener(t *testing.T, gateway *env.Node, request string) (*listener, error) {
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, "ws://"+gateway.Public()+"/connection/uni_websocket")
	if err != nil {
		return nil, err
	}
	next := func() ([]byte, error) {
		if err := conn.SetReadDeadline(time.Now().Add(client.Patience)); err != nil {
			return nil, err
		}
		return wsutil.ReadServerText(conn)
	}
	return &listener{next, func() { _ = conn.Close() }}, wsutil.WriteClientText(conn, []byte(request))
}

func eventListener(t *testing.T, gateway *env.Node, request string) (*listener, error) {
	return httpListener(t, http.MethodGet, "http://"+gateway.Public()+"/connection/uni_sse?cf_connect="+url.QueryEscape(request), "")
}

func lineListener(t *testing.T, gateway *env.Node, request string) (*listener, error) {
	return httpListener(t, http.MethodPost, "http://"+gateway.Public()+"/connection/uni_http_stream", request)
}

func httpListener(t *testing.T, method, at, body string) (*listener, error) {
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, method, at, strings.NewReader(body))
	if err != nil {
		cancel()
		return nil, err
	}
	watchdog := time.AfterFunc(client.Patience, cancel)
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	in := bufio.NewReader(res.Body)
	next := func() ([]byte, error) {
		for {
			watchdog.Reset(client.Patience)
			line, err := in.ReadBytes('\n')
			line = bytes.TrimPrefix(bytes.TrimSpace(line), []byte("data: "))
			if err != nil || len(line) > 0 {
				return line, err
			}
		}
	}
	return &listener{next, func() {
		watchdog.Stop()
		cancel()
		_ = res.Body.Close()
	}}, nil
}

// read gives the next push that is no ping.
func (l *listener) read() (push, error) {
	for {
		text, err := l.next()
		if err != nil {
			return push{}, err
		}
		if string(text) == "{}" {
			continue
		}
		var p push
		if err := json.Unmarshal(text, &p); err != nil {
			return push{}, fmt.Errorf("%s: %w", text, err)
		}
		return p, nil
	}
}

// must is read in a test that can't go on without.
func (l *listener) must(t *testing.T) push {
	t.Helper()
	p, err := l.read()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// connectionToken is signed as the app's backend does it.
func connectionToken(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(payload)
	mac := hmac.New(sha256.New, []byte(env.Secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// What backends do to unidirectional clients, who can ask for nothing
// themselves.
func TestUnidirectionalClients(t *testing.T) {
	c := env.Start(t, env.Apart(2))
	for name, begin := range uniTransports {
		for i, gateway := range c.Gateways {
			t.Run(fmt.Sprint(name, " at gateway ", i), func(t *testing.T) {
				user, room, extra := fmt.Sprint(name, i), fmt.Sprint("room-", name, i), fmt.Sprint("extra-", name, i)
				token := connectionToken(t, map[string]any{"sub": user, "channels": []string{room}, "exp": time.Now().Unix() + 3600})
				l, err := begin(t, gateway, fmt.Sprintf(`{"token":%q,"subs":{%q:{"recover":true}}}`, token, extra))
				if err != nil {
					t.Fatal(err)
				}
				defer l.close()
				listens(t, c, l, user, room, extra, name)
			})
		}
	}
	anonymous, err := lineListener(t, c.Gateways[0], "{}")
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.close()
	if p := anonymous.must(t); p.Connect == nil || len(p.Connect.Subs) != 0 {
		t.Errorf("an anonymous client is told %+v", p)
	}
	_, page := get(t, c.Gateways[0], "/metrics")
	if !strings.Contains(page, `carillon_gateway_closes_total{reason="terminated"} 3`) {
		t.Error("what ended the three clients of a gateway is not counted")
	}
}

func listens(t *testing.T, c *env.Cluster, l *listener, user, room, extra, transport string) {
	t.Helper()
	first := l.must(t)
	if first.Connect == nil || first.Connect.Client == "" || first.Connect.Ping != 25 || len(first.Connect.Subs) != 1 {
		t.Fatalf("the first push is %+v", first)
	}
	id := first.Connect.Client
	hears := func(channel string, n int) {
		t.Helper()
		serverAPI(t, c, "publish", fmt.Sprintf(`{"channel":%q,"data":%d}`, channel, n), nil)
		if p := l.must(t); p.Pub == nil || p.Channel != channel || string(p.Pub.Data) != fmt.Sprint(n) {
			t.Fatalf("got %+v, want %d on %s", p, n, channel)
		}
	}
	hears(room, 1)
	serverAPI(t, c, "publish", fmt.Sprintf(`{"channel":%q,"data":"not yours"}`, extra), nil)
	serverAPI(t, c, "subscribe", fmt.Sprintf(`{"user":%q,"channel":%q}`, user, extra), nil)
	if p := l.must(t); p.Subscribe == nil || p.Channel != extra {
		t.Fatalf("got %+v, want to be subscribed to %s", p, extra)
	}
	hears(extra, 2)
	serverAPI(t, c, "unsubscribe", fmt.Sprintf(`{"user":%q,"channel":%q}`, user, extra), nil)
	if p := l.must(t); p.Unsubscribe == nil || p.Channel != extra {
		t.Fatalf("got %+v, want to be unsubscribed from %s", p, extra)
	}
	serverAPI(t, c, "publish", fmt.Sprintf(`{"channel":%q,"data":"not yours"}`, extra), nil)
	hears(room, 3)
	serverAPI(t, c, "refresh", fmt.Sprintf(`{"user":%q,"expire_at":%d}`, user, time.Now().Unix()+7200), nil)
	if p := l.must(t); p.Refresh == nil || p.Refresh.TTL < 7000 {
		t.Fatalf("got %+v, want to be refreshed", p)
	}
	var connections struct {
		Connections map[string]struct{ Transport, User string }
	}
	serverAPI(t, c, "connections", fmt.Sprintf(`{"user":%q}`, user), &connections)
	if got := connections.Connections[id]; got.Transport != transport || got.User != user {
		t.Errorf("connections are %+v", connections)
	}
	serverAPI(t, c, "disconnect", fmt.Sprintf(`{"user":%q,"disconnect":{"code":4500,"reason":"go away"}}`, user), nil)
	if p := l.must(t); p.Disconnect == nil || p.Disconnect.Code != 4500 || p.Disconnect.Reason != "go away" || p.Disconnect.Reconnect {
		t.Fatalf("got %+v, want to be disconnected", p)
	}
	_, err := l.read()
	if closed, ok := err.(wsutil.ClosedError); err != io.EOF && (!ok || closed.Code != 4500) {
		t.Errorf("after the last words: %v", err)
	}
}

// follower is a unidirectional client that knows its place in a channel.
type follower struct {
	*listener
	epoch  string
	offset uint64
	seen   []int
}

// come connects the follower with its place.
func (f *follower) come(begin func(*testing.T, *env.Node, string) (*listener, error), t *testing.T, gateway *env.Node, token, channel string) error {
	request := fmt.Sprintf(`{"token":%q}`, token)
	if f.epoch != "" {
		request = fmt.Sprintf(`{"token":%q,"subs":{%q:{"recover":true,"epoch":%q,"offset":%d}}}`, token, channel, f.epoch, f.offset)
	}
	l, err := begin(t, gateway, request)
	if err != nil {
		return err
	}
	f.listener = l
	p, err := l.read()
	if err != nil {
		return err
	}
	if p.Connect == nil {
		return fmt.Errorf("the first push is %+v", p)
	}
	sub, ok := p.Connect.Subs[channel]
	if !ok || !sub.Recoverable || sub.Recovered == (f.epoch == "") {
		return fmt.Errorf("subscribed as %+v, having been at %q", sub, f.epoch)
	}
	f.epoch, f.offset = sub.Epoch, sub.Offset
	for _, p := range sub.Publications {
		if err := f.take(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) take(p publication) error {
	var n int
	if err := json.Unmarshal(p.Data, &n); err != nil {
		return fmt.Errorf("%s: %w", p.Data, err)
	}
	f.seen, f.offset = append(f.seen, n), p.Offset
	return nil
}

// follow reads until it has seen so many.
func (f *follower) follow(enough int) error {
	for len(f.seen) < enough {
		p, err := f.read()
		if err != nil {
			return err
		}
		if p.Pub == nil {
			return fmt.Errorf("got %+v", p)
		}
		if err := f.take(*p.Pub); err != nil {
			return err
		}
	}
	return nil
}

// Unidirectional clients whose gateway is killed or stopped go on at another
// one where they were.
func TestUnidirectionalClientsRecover(t *testing.T) {
	const channel, batch = "centrifugo:log-uni", 10
	for _, way := range ends {
		t.Run(way.name, func(t *testing.T) {
			c := env.Start(t, env.Apart(2))
			token := connectionToken(t, map[string]any{"sub": "42", "channels": []string{channel}})
			published := 0
			publish := func() {
				for range batch {
					serverAPI(t, c, "publish", fmt.Sprintf(`{"channel":%q,"data":%d,"idempotency_key":"k%d"}`, channel, published, published), nil)
					published++
				}
			}
			followers := map[string]*follower{}
			for name, begin := range uniTransports {
				f := &follower{}
				if err := f.come(begin, t, c.Gateways[0], token, channel); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				followers[name] = f
			}
			publish()
			for name, f := range followers {
				if err := f.follow(published); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			way.end(c.Gateways[0])
			for name, f := range followers {
				for {
					p, err := f.read()
					if err != nil {
						break
					}
					if p.Disconnect == nil || p.Disconnect.Code != 3001 || !p.Disconnect.Reconnect {
						t.Fatalf("%s: got %+v while the gateway ends", name, p)
					}
				}
				f.close()
			}
			publish()
			for name, f := range followers {
				if err := f.come(uniTransports[name], t, c.Gateways[1], token, channel); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				defer f.close()
			}
			publish()
			for name, f := range followers {
				if err := f.follow(published); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if want := sequence(published); !slices.Equal(f.seen, want) {
					t.Errorf("%s has seen %v, want %v", name, f.seen, want)
				}
			}
		})
	}
}

func sequence(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
