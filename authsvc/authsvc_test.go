package authsvc_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/authsvc"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	key, secret = "key1", "secret1"
	wait        = 10 * time.Second
)

func registry(t testing.TB) *app.Registry {
	t.Helper()
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: key, Secret: secret}}}})
	if err != nil {
		t.Fatal(err)
	}
	return apps
}

// start runs a service and gives the function that stops it and returns what
// Run returned.
func start(t testing.TB, srv *natstest.TestServer, node string, apps *app.Registry) (stop func() error) {
	t.Helper()
	return startWith(t, srv, node, authsvc.DefaultConfig(), apps)
}

func startWith(t testing.TB, srv *natstest.TestServer, node string, cfg authsvc.Config, apps *app.Registry) (stop func() error) {
	t.Helper()
	svc, err := authsvc.New(cfg, srv.Deps(t, node, "authsvc"), apps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// ask repeats a request until the service has subscribed.
func ask(t testing.TB, nc *nats.Conn, subj string, data []byte) authz.Decision {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		msg, err := nc.Request(subj, data, wait)
		if errors.Is(err, nats.ErrNoResponders) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			t.Fatalf("request %s: %v", subj, err)
		}
		var d authz.Decision
		if err := json.Unmarshal(msg.Data, &d); err != nil {
			t.Fatalf("decision %q: %v", msg.Data, err)
		}
		return d
	}
}

func request(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func subscribeRequest(channel, data string) authz.Subscribe {
	return authz.Subscribe{
		App: "1", Key: key, SocketID: "1.2", Channel: channel, ChannelData: data,
		Auth: signature.Auth(key, secret, signature.Channel("1.2", channel, data)),
	}
}

func TestEndpoints(t *testing.T) {
	leaktest.Check(t)
	srv := natstest.Server(t)
	apps := registry(t)
	start(t, srv, "a", apps)
	nc := srv.Conns(t).Req

	raw := `{"user_id":10,"user_info":{"html":"<b>&"}}`
	d := ask(t, nc, subject.AuthSubscribe, request(t, subscribeRequest("presence-x", raw)))
	if !d.Allow || d.User == nil || d.User.RawID != "10" || d.User.Info != `{"html":"<b>&"}` {
		t.Errorf("presence subscription: %+v %+v", d, d.User)
	}
	bad := subscribeRequest("private-x", "")
	bad.Auth += "0"
	if d := ask(t, nc, subject.AuthSubscribe, request(t, bad)); d.Allow || d.Reason != authz.BadSignature {
		t.Errorf("bad signature: %+v", d)
	}
	userData := `{"id":"7","watchlist":[1]}`
	signIn := authz.SignIn{
		App: "1", Key: key, SocketID: "1.2", UserData: userData, Auth: signature.Auth(key, secret, signature.User("1.2", userData)),
	}
	if d := ask(t, nc, subject.AuthSignIn, request(t, signIn)); !d.Allow || d.User.ID != "7" || d.User.Watchlist[0] != "1" {
		t.Errorf("sign-in: %+v", d)
	}
	for _, subj := range []string{subject.AuthSubscribe, subject.AuthSignIn} {
		if d := ask(t, nc, subj, []byte("not JSON")); d.Allow || d.Reason != authz.BadData || d.Message == "" {
			t.Errorf("malformed request to %s: %+v", subj, d)
		}
	}

	// A rotated key counts from the next request on.
	err := apps.Replace([]app.App{{ID: "1", Keys: []app.Key{{Key: "key2", Secret: "other"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := ask(t, nc, subject.AuthSubscribe, request(t, subscribeRequest("private-x", ""))); d.Allow {
		t.Errorf("a removed key is still good: %+v", d)
	}
}

// TestStopAnswersAll stops one of two services under load: every request is
// answered, by the one or the other.
func TestStopAnswersAll(t *testing.T) {
	leaktest.Check(t)
	srv := natstest.Server(t)
	stop := start(t, srv, "a", registry(t))
	nc := srv.Conns(t).Req
	data := request(t, subscribeRequest("private-x", ""))
	ask(t, nc, subject.AuthSubscribe, data) // a is up
	startSecond(t, srv, nc)
	inbox := nc.NewInbox()
	const n = 2000
	answers := make(chan *nats.Msg, n)
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for i := range n {
		if err := nc.PublishRequest(subject.AuthSubscribe, inbox, data); err != nil {
			t.Fatal(err)
		}
		if i != n/2 {
			continue
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		await.True(t, "an answer", func() bool { return len(answers) > 0 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		select {
		case msg := <-answers:
			if len(msg.Data) == 0 {
				t.Fatalf("answer %d: nobody was there", i)
			}
		case <-time.After(wait):
			t.Fatalf("%d of %d requests were answered", i, n)
		}
	}
}

// startSecond starts service b and waits until it answers: it alone knows key2.
func startSecond(t testing.TB, srv *natstest.TestServer, nc *nats.Conn) {
	t.Helper()
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: key, Secret: secret}, {Key: "key2", Secret: "s2"}}}})
	if err != nil {
		t.Fatal(err)
	}
	start(t, srv, "b", apps)
	req := subscribeRequest("private-x", "")
	req.Auth = signature.Auth("key2", "s2", signature.Channel("1.2", "private-x", ""))
	data := request(t, req)
	await.True(t, "the second node to answer", func() bool { return ask(t, nc, subject.AuthSubscribe, data).Allow })
}

func TestNewRefusesBadConfig(t *testing.T) {
	for name, cfg := range map[string]authsvc.Config{
		"no queue": {Waiting: 1}, "negative workers": {Workers: -1, Queue: 1, Waiting: 1}, "huge queue": {Queue: 1 << 30, Waiting: 1}, "nobody waits": {Queue: 1},
	} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkSubscribeOverNATS(b *testing.B) {
	srv := natstest.Server(b)
	start(b, srv, "a", registry(b))
	nc := srv.Conns(b).Req
	data := request(b, subscribeRequest("presence-x", `{"user_id":10,"user_info":{"name":"x"}}`))
	ask(b, nc, subject.AuthSubscribe, data)
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := nc.Request(subject.AuthSubscribe, data, wait); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
