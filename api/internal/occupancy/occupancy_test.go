package occupancy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func newReader(t *testing.T) (*Reader, *nats.Conn) {
	t.Helper()
	conns := natstest.Server(t).Conns(t)
	return New(conns.Req, Config{Partitions: 4, Timeout: 5 * time.Second, ListMax: 100}), conns.Live
}

// An owner that takes over a moment later still answers.
func TestOwnerMoves(t *testing.T) {
	r, nc := newReader(t)
	shard := channel.Key{App: "1", Name: "a"}.Shard(subject.PresenceShards)
	type result struct {
		info presence.ChannelInfo
		err  error
	}
	got := make(chan result, 1)
	go func() {
		info, _, err := r.Channel(context.Background(), "1", "a", false)
		got <- result{info, err}
	}()
	for r.nc.Stats().OutMsgs == 0 { // its first request finds nobody
		runtime.Gosched()
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(subject.PresenceQuery(shard), func(msg *nats.Msg) {
		answer, _ := json.Marshal(presence.Answer{Channels: []presence.ChannelInfo{{Name: "a", Subscriptions: 3}}})
		_ = msg.Respond(answer)
	}); err != nil {
		t.Fatal(err)
	}
	if res := <-got; res.err != nil || res.info.Subscriptions != 3 {
		t.Errorf("%+v: %v", res.info, res.err)
	}
}

// A roster that does not fit into one answer comes in several.
func TestRosterInParts(t *testing.T) {
	r, nc := newReader(t)
	if _, err := nc.Subscribe("car.pres.*.query", func(msg *nats.Msg) {
		var q presence.Query
		if err := json.Unmarshal(msg.Data, &q); err != nil {
			t.Error(err)
		}
		next := map[string]string{"": "u1", "u1": "u2", "u2": "u3"}[q.After]
		info := presence.ChannelInfo{Name: "a", Users: 3, Members: []presence.MemberInfo{{ID: next}}}
		answer, _ := json.Marshal(presence.Answer{Channels: []presence.ChannelInfo{info}, More: next != "u3"})
		_ = msg.Respond(answer)
	}); err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	info, _, err := r.Channel(t.Context(), "1", "a", true)
	if err != nil || fmt.Sprint(info.Members) != "[{u1  } {u2  } {u3  }]" {
		t.Errorf("%+v: %v", info, err)
	}
}

func TestUnavailable(t *testing.T) {
	r, nc := newReader(t)
	if _, _, err := r.Channel(t.Context(), "1", "a", false); !errors.Is(err, ErrUnavailable) || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("without an owner: %v", err)
	}
	for data, want := range map[string]error{`{"error":"not the owner"}`: ErrUnavailable, `nonsense`: nil} {
		sub, err := nc.Subscribe("car.pres.*.query", func(msg *nats.Msg) { _ = msg.Respond([]byte(data)) })
		if err != nil || nc.Flush() != nil {
			t.Fatal(err)
		}
		_, _, err = r.Channel(t.Context(), "1", "a", false)
		if err == nil || want != nil && !errors.Is(err, want) || want == nil && errors.Is(err, ErrUnavailable) {
			t.Errorf("answer %s: %v", data, err)
		}
		if _, _, err := r.List(t.Context(), "1", ""); err == nil {
			t.Errorf("answer %s: a list without an error", data)
		}
		if err := sub.Unsubscribe(); err != nil || nc.Flush() != nil {
			t.Fatal(err)
		}
	}
}

// An owner that does not answer costs the timeout, not more.
func TestDeadline(t *testing.T) {
	r, nc := newReader(t)
	r.cfg.Timeout = 50 * time.Millisecond
	if _, err := nc.SubscribeSync("car.>"); err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	if _, _, err := r.List(t.Context(), "1", ""); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("list: %v", err)
	}
	if _, err := r.Cached(t.Context(), "1", "cache-a"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("cached value: %v", err)
	}
	if _, _, err := r.Channels(t.Context(), "1", []string{"a", "b"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("channels: %v", err)
	}
}
