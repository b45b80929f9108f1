package router_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

// TestTrimmedWhileAway: what the journal took and trimmed while the router
// could not read is missing, and the floor says so.
func TestTrimmedWhileAway(t *testing.T) {
	var cfg natsembed.Config
	srv := natstest.Server(t, func(c *natsembed.Config) { cfg = *c })
	start(t, srv.Deps(t, "r1", router.Role))
	first := publishOne(t, newPublisher(t, srv.Conns(t).Req), event("log-hole", "1"))
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	p := channel.Key{App: appID, Name: "log-hole"}.Partition(partitions)
	body, err := json.Marshal(history.Request{App: appID, Channel: "log-hole", Since: first.Position, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	elsewhere(t, cfg, func(js jetstream.JetStream) {
		for _, data := range []string{"2", "3"} {
			var b message.Batch
			b.Add(event("log-hole", data))
			if _, err := js.Publish(t.Context(), subject.Log(p), b.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		s, err := js.Stream(t.Context(), subject.JournalStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context(), jetstream.WithPurgeKeep(1)); err != nil {
			t.Fatal(err)
		}
	})
	srv.Start()
	nc := srv.Conns(t).Req
	var got history.Reply
	eventually(t, "the last publication", func() bool {
		msg, err := nc.Request(subject.History(p), body, time.Second)
		got = history.Reply{}
		if err != nil || json.Unmarshal(msg.Data, &got) != nil {
			return false
		}
		return len(got.Entries) == 1 && dataOf(t, &got.Entries[0]) == "3"
	})
	if first.Position >= got.Floor {
		t.Errorf("a read since %d is complete by the floor %d, but publication 2 is missing", first.Position, got.Floor)
	}
}

// elsewhere runs the server with the same files where no router is.
func elsewhere(t *testing.T, cfg natsembed.Config, do func(js jetstream.JetStream)) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	srv, err := natsembed.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := srv.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	do(js)
}
