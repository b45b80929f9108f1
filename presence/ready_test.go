package presence_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	node "github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// When all nodes are ready, every shard is answered for. Two that come up at
// the same moment wait for each other first.
func TestReadyMeansOwned(t *testing.T) {
	e := newEnv(t, app.App{})
	idle, err := node.New(node.DefaultConfig(), e.srv.Deps(t, "idle"), e.apps)
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Ready(); err == nil || !strings.Contains(err.Error(), "waiting") {
		t.Errorf("a node that does not run says %v, want that it waits", err)
	}
	for _, n := range []*presenceNode{e.start("p1"), e.start("p2"), e.start("p3")} {
		await.Success(t, "ready", n.svc.Ready)
	}
	ask, err := json.Marshal(presence.Query{App: "1", Channel: "presence-x"})
	if err != nil {
		t.Fatal(err)
	}
	for shard := range subject.PresenceShards {
		msg, err := e.nc.Request(subject.PresenceQuery(shard), ask, time.Second)
		if err != nil {
			t.Fatalf("shard %d: %v", shard, err)
		}
		var answer presence.Answer
		if err := json.Unmarshal(msg.Data, &answer); err != nil || answer.Error != "" {
			t.Errorf("shard %d: %s %v", shard, msg.Data, err)
		}
	}
}
