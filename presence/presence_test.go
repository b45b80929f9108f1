package presence_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/cluster"
	node "github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

func (e *env) wantEvents(ch string, want ...string) {
	e.t.Helper()
	e.eventually(fmt.Sprintf("events %v of %s", want, ch), func() bool { return len(e.live.of(ch)) >= len(want) })
	if got := e.live.of(ch); !slices.Equal(got, want) {
		e.t.Fatalf("events of %s are %v, want %v", ch, got, want)
	}
}

func ids(members []presence.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, m.ID)
	}
	return strings.Join(out, ",")
}

func TestUserOnTwoGateways(t *testing.T) {
	e := newEnv(t, app.App{SubscriptionCount: true, Watchlist: true})
	e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	ch := "presence-room"

	first := a.join(ch, "u1")
	if ids(first.Members) != "u1" {
		t.Errorf("roster of the first: %+v", first)
	}
	if res := b.join(ch, "u1"); ids(res.Members) != "u1" {
		t.Errorf("roster of the user's second connection: %+v", res)
	}
	if res := b.join(ch, "u2"); ids(res.Members) != "u1,u2" || res.Version <= first.Version {
		t.Errorf("roster of the second user: %+v after version %d", res, first.Version)
	}
	answer := e.query(presence.Query{Channel: ch, Members: true})
	if len(answer.Channels) != 1 || answer.Channels[0].Subscriptions != 3 || answer.Channels[0].Users != 2 ||
		answer.Channels[0].Members[0] != (presence.MemberInfo{ID: "u1", RawID: `"u1"`, Info: `{"n":"<u1>"}`}) {
		t.Errorf("query: %+v", answer)
	}
	a.leave(ch, "u1")
	b.leave(ch, "u2")
	b.leave(ch, "u1")
	e.wantEvents(ch, `+"u1"{"n":"<u1>"}`, `+"u2"{"n":"<u2>"}`, `-"u2"`, `-"u1"`)
	if answer := e.query(presence.Query{Channel: ch}); len(answer.Channels) != 0 {
		t.Errorf("an empty channel is listed: %+v", answer)
	}
	var last uint64
	e.live.mu.Lock()
	defer e.live.mu.Unlock()
	for _, p := range e.live.pubs {
		if p.Kind != message.MemberAdded && p.Kind != message.MemberRemoved {
			continue
		}
		if p.Version <= last {
			t.Errorf("version %d after %d", p.Version, last)
		}
		if p.Version > first.Version && last == 0 {
			t.Errorf("the first joiner's event %d is behind its roster %d", p.Version, first.Version)
		}
		last = p.Version
	}
}

func TestCountsAndOnline(t *testing.T) {
	e := newEnv(t, app.App{SubscriptionCount: true, Watchlist: true})
	e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	// One by one: counts that follow each other while gateways are awaited are
	// one event.
	a.subscribers("news", 3)
	e.wantEvents("news", "=3")
	b.subscribers("news", 2)
	e.wantEvents("news", "=3", "=5")
	b.subscribers("news", 0)
	e.wantEvents("news", "=3", "=5", "=3")
	a.online("#online-7", true)
	if got := e.query(presence.Query{Online: []string{"7", "8"}}); !slices.Equal(got.Online, []string{"7"}) {
		t.Errorf("online: %+v", got)
	}
	a.online("#online-7", false)
	e.wantEvents("#online-7", "^7", "v7")

	shard := channel.Key{App: "1", Name: "news"}.Shard(subject.PresenceShards)
	all := e.queryShard(shard, presence.Query{App: "1", All: true, Prefix: "ne"})
	if len(all.Channels) != 1 || all.Channels[0].Name != "news" || all.Channels[0].Subscriptions != 3 {
		t.Errorf("list: %+v", all)
	}
}

func TestMemberLimit(t *testing.T) {
	e := newEnv(t, app.App{Limits: app.Limits{PresenceMembers: 2}})
	e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	a.join("presence-x", "u1")
	b.join("presence-x", "u2")
	if res := a.join("presence-x", "u3"); !res.Full || res.Limit != 2 {
		t.Errorf("third of two: %+v", res)
	}
	if res := a.join("presence-x", "u2"); res.Full || ids(res.Members) != "u1,u2" {
		t.Errorf("who is in already: %+v", res)
	}
	e.wantEvents("presence-x", `+"u1"{"n":"<u1>"}`, `+"u2"{"n":"<u2>"}`)
}

func TestGatewayRestart(t *testing.T) {
	e := newEnv(t, app.App{})
	e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	a.join("presence-x", "u1")
	a.join("presence-y", "u2")
	b.join("presence-x", "u3")
	a.restart()
	// y hears nothing from the new run: the membership and a ping tell.
	e.wantEvents("presence-y", `+"u2"{"n":"<u2>"}`, `-"u2"`)
	if res := a.join("presence-x", "u4"); ids(res.Members) != "u3,u4" {
		t.Errorf("roster after the restart: %+v", res)
	}
	e.wantEvents("presence-x", `+"u1"{"n":"<u1>"}`, `+"u3"{"n":"<u3>"}`, `-"u1"`, `+"u4"{"n":"<u4>"}`)
}

// TestGatewayOutOfMembership: who answers over NATS is not evicted.
func TestGatewayOutOfMembership(t *testing.T) {
	e := newEnv(t, app.App{})
	e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	a.join("presence-x", "u1")
	e.remove("ga")
	e.eventually("two pings", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.pings >= 2
	})
	if res := b.join("presence-x", "u2"); ids(res.Members) != "u1,u2" {
		t.Errorf("roster: %+v", res)
	}
	a.nc.Close()
	e.wantEvents("presence-x", `+"u1"{"n":"<u1>"}`, `+"u2"{"n":"<u2>"}`, `-"u1"`)
}

// TestOwnersMove: nodes come, leave and die; a gateway dies together with an
// owner. Members stay true and every event comes once.
func TestOwnersMove(t *testing.T) {
	e := newEnv(t, app.App{})
	p1 := e.start("p1")
	a, b := e.gateway("ga"), e.gateway("gb")
	const channels = 40
	name := func(i int) string { return fmt.Sprintf("presence-%d", i) }
	want := map[string][]string{}
	for i := range channels {
		a.join(name(i), "u1")
		want[name(i)] = []string{`+"u1"{"n":"<u1>"}`}
	}
	check := func(users string) {
		t.Helper()
		for i := range channels {
			e.eventually(fmt.Sprintf("members %s in %s", users, name(i)), func() bool { return e.membersOf(name(i)) == users })
			e.wantEvents(name(i), want[name(i)]...)
		}
	}
	check("u1")

	p2 := e.start("p2")
	e.eventually("two nodes share the shards", func() bool {
		one, two := roles(t, p1), roles(t, p2)
		return one["owner"]+two["owner"] == 64 && two["owner"] > 0 && two["claiming"] == 0
	})
	if roles(t, p2)["owner"] == 0 || roles(t, p2)["standby"]+roles(t, p2)["owner"] != 64 {
		t.Fatalf("roles of the second node: %v", roles(t, p2))
	}
	for i := range channels {
		b.join(name(i), "u2")
		want[name(i)] = append(want[name(i)], `+"u2"{"n":"<u2>"}`)
	}
	check("u1,u2")

	p1.crash()
	b.die()
	e.remove("p1")
	for i := range channels {
		want[name(i)] = append(want[name(i)], `-"u2"`)
	}
	check("u1")

	p3 := e.start("p3")
	e.eventually("p3 has a part", func() bool { return roles(t, p3)["owner"] > 0 && roles(t, p3)["claiming"] == 0 })
	p2.stop()
	e.remove("p2")
	e.eventually("p3 has all", func() bool { return roles(t, p3)["owner"] == 64 })
	for i := range channels {
		a.leave(name(i), "u1")
		want[name(i)] = append(want[name(i)], `-"u1"`)
	}
	check("")
}

// TestGossipCut: a node that sees no other one, from its start and later again,
// owns nothing while the owners answer on NATS, and every event comes once.
func TestGossipCut(t *testing.T) {
	e := newEnv(t, app.App{})
	p1 := e.start("p1")
	a := e.gateway("ga")
	const channels = 20
	name := func(i int) string { return fmt.Sprintf("presence-%d", i) }
	var want []string
	everybody := func(user string) {
		t.Helper()
		want = append(want, fmt.Sprintf(`+%q{"n":"<%s>"}`, user, user))
		for i := range channels {
			a.join(name(i), user)
			e.wantEvents(name(i), want...)
		}
	}
	everybody("u1")
	blind := &presenceNode{}
	blind.blinded.Store(true)
	p2 := e.startNode("p2", blind)
	e.eventually("p2 claims all shards", func() bool { return roles(t, p2)["claiming"] == 64 })
	everybody("u2")
	if n := roles(t, p2)["owner"]; n > 0 {
		t.Errorf("p2 owns %d shards, their owner lives", n)
	}

	see := func(sees bool) {
		p2.blinded.Store(!sees)
		e.change(func(ms []cluster.Member) []cluster.Member { return ms })
	}
	see(true)
	e.eventually("the nodes share the shards", func() bool {
		one, two := roles(t, p1), roles(t, p2)
		return one["owner"]+two["owner"] == 64 && one["owner"] > 0 && two["owner"] > 0
	})
	everybody("u3")
	see(false)
	e.eventually("p2 claims what it does not own", func() bool { return roles(t, p2)["claiming"] > 0 })
	everybody("u4")
	if one, two := roles(t, p1), roles(t, p2); one["owner"]+two["owner"] != 64 {
		t.Errorf("owners: %v and %v, want one for each of 64", one, two)
	}
}

// membersOf lists the members that the owner knows.
func (e *env) membersOf(ch string) string {
	var got []string
	for _, c := range e.query(presence.Query{Channel: ch, Members: true}).Channels {
		for _, m := range c.Members {
			got = append(got, m.ID)
		}
	}
	slices.Sort(got)
	return strings.Join(got, ",")
}

// roles counts the shards by role, as the debug page tells.
func roles(t *testing.T, n *presenceNode) map[string]int {
	t.Helper()
	resp, err := http.Get("http://" + n.deps.Ops.Addr() + "/debug/presence")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for line := range strings.Lines(string(body)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "shard" {
			found[fields[1]]++
		}
	}
	return found
}

// TestHooks: a removal that is undone within the hold is not told, nor is its
// undoing.
func TestHooks(t *testing.T) {
	e := newEnv(t, app.App{Webhooks: []app.Webhook{{URL: "http://127.0.0.1:1/"}}})
	e.start("p1")
	a := e.gateway("ga")
	a.join("presence-x", "u1")
	a.leave("presence-x", "u1")
	a.join("presence-x", "u1")
	a.subscribers("news", 2)
	a.leave("presence-x", "u1")

	e.wantHooks(
		"member_added presence-x u1", "channel_occupied presence-x", "channel_occupied news", "subscription_count news",
		"member_removed presence-x u1", "channel_vacated presence-x",
	)
}

// TestHooksOfTheLastNode: what the last node holds back nobody could undo, nor
// tell later.
func TestHooksOfTheLastNode(t *testing.T) {
	e := newEnv(t, app.App{Webhooks: []app.Webhook{{URL: "http://127.0.0.1:1/"}}})
	p := e.start("p1")
	a := e.gateway("ga")
	a.join("presence-x", "u1")
	a.leave("presence-x", "u1")
	p.stop()
	e.wantHooks(
		"member_added presence-x u1", "channel_occupied presence-x", "member_removed presence-x u1", "channel_vacated presence-x",
	)
}

// wantHooks takes events from the work queue.
func (e *env) wantHooks(want ...string) {
	t := e.t
	t.Helper()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	js, err := jetstream.New(e.nc)
	if err != nil {
		t.Fatal(err)
	}
	e.eventually("the stream", func() bool { _, err := js.Stream(ctx, subject.HookStream); return err == nil })
	consumer, err := js.CreateConsumer(ctx, subject.HookStream, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	for len(got) < len(want) {
		msg, err := consumer.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		var ev hook.Event
		if err := json.Unmarshal(msg.Data(), &ev); err != nil {
			t.Fatal(err)
		}
		if ev.TimeMs == 0 || msg.Headers().Get("Nats-Msg-Id") == "" || subject.HookApp(msg.Subject()) != "1" {
			t.Errorf("event %+v on %s with %v", ev, msg.Subject(), msg.Headers())
		}
		got = append(got, strings.TrimSpace(ev.Name+" "+ev.Channel+" "+ev.UserID))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("events\n got %v\nwant %v", got, want)
	}
}

// TestMalformed: nonsense is refused with a reason and does no harm.
func TestMalformed(t *testing.T) {
	e := newEnv(t, app.App{})
	e.start("p1")
	a := e.gateway("ga")
	a.join("presence-x", "u1")
	shard := channel.Key{App: "1", Name: "presence-x"}.Shard(subject.PresenceShards)
	for _, bad := range [][]byte{nil, []byte("{}"), {1}, {9, 9, 9}} {
		msg, err := e.nc.Request(subject.PresenceDelta(shard), bad, patience)
		if err != nil {
			t.Fatal(err)
		}
		if reply, err := presence.ParseReply(msg.Data); err != nil || reply.Status != presence.Resync {
			t.Errorf("delta %v: %+v, %v", bad, reply, err)
		}
	}
	for _, bad := range []string{"", "[]", "{}", `{"app":"1"}`} {
		msg, err := e.nc.Request(subject.PresenceQuery(shard), []byte(bad), patience)
		if err != nil {
			t.Fatal(err)
		}
		var answer presence.Answer
		if err := json.Unmarshal(msg.Data, &answer); err != nil || answer.Error == "" {
			t.Errorf("query %q: %q, %v", bad, msg.Data, err)
		}
	}
	if err := e.nc.Publish(subject.PresenceNotes(shard), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if answer := e.query(presence.Query{Channel: "presence-x"}); answer.Channels[0].Users != 1 {
		t.Errorf("afterwards: %+v", answer)
	}
}

func TestConfig(t *testing.T) {
	if err := node.DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, cfg := range map[string]node.Config{
		"no queue": {HookQueue: 1}, "no hook queue": {Queue: 1}, "many partitions": {Queue: 1, HookQueue: 1, Partitions: 1 << 20},
	} {
		if cfg.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
