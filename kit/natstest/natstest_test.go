package natstest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/natstest"
)

func TestDeps(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "node-1", "gateway", "api")
	local := deps.Cluster.Local()
	if local.Node != "node-1" || !local.HasRole("api") || local.Incarnation == "" {
		t.Errorf("member is %+v", local)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + deps.Ops.Addr() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("readyz answers %d", resp.StatusCode)
	}
	other := srv.Deps(t, "node-2")
	sub, err := other.NATS.Live.SubscribeSync("s")
	if err != nil {
		t.Fatal(err)
	}
	other.NATS.Live.Flush()
	deps.NATS.Req.Publish("s", nil)
	if _, err := sub.NextMsg(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestRestartKeepsFilesAndPort(t *testing.T) {
	srv := natstest.Server(t)
	url := srv.URL()
	js, err := jetstream.New(srv.Conns(t).Req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	srv.Stop()
	srv.Start()
	srv.Start()
	if srv.URL() != url {
		t.Errorf("restarted at %s, was at %s", srv.URL(), url)
	}
	js, err = jetstream.New(srv.Conns(t).Req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Stream(t.Context(), "S"); err != nil {
		t.Errorf("the stream is gone: %v", err)
	}
}
