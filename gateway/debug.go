package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// debugTimeout bounds a look into the loops: one that hangs must not take the
// ops port with it.
const debugTimeout = 2 * time.Second

// debugPages puts the gateway's pages on the ops port.
func (g *Gateway) debugPages() {
	page := func(path string, serve func(ctx context.Context, r *http.Request) (any, bool)) {
		g.deps.Ops.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), debugTimeout)
			defer cancel()
			body, found := serve(ctx, r)
			if !found {
				http.Error(w, "not here; see the parameters at /debug/", http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			if err := enc.Encode(body); err != nil {
				g.log.Debug("debug page not sent", "path", path, "err", err)
			}
		}))
	}
	page("/debug/loops", func(context.Context, *http.Request) (any, bool) { return g.describeLoops(), true })
	page("/debug/channel", g.describeChannel) // ?app=&name=
	page("/debug/conn", g.describeConn)       // ?id=<socket id>
}

func (g *Gateway) describeLoops() any {
	s := g.edge.Stats()
	positions := make([]string, g.feed.Partitions())
	for p := range positions {
		positions[p] = position(g.feed.Last(p))
	}
	return struct {
		Channels   int
		Apps       map[string]int64 // connections
		Partitions []string         // delivered up to, sequence.index
		Loops      []loop.Stats
	}{s.Channels, s.Connections, positions, s.Loops}
}

func (g *Gateway) describeChannel(ctx context.Context, r *http.Request) (any, bool) {
	key := channel.Key{App: r.URL.Query().Get("app"), Name: r.URL.Query().Get("name")}
	subscribers, err := g.edge.Subscribers(ctx, key)
	p := key.Partition(g.feed.Partitions())
	return struct {
		Partition   int
		Position    string
		Subscribers []int // by loop
		Error       string
	}{p, position(g.feed.Last(p)), subscribers, text(err)}, key.App != "" && key.Name != ""
}

func (g *Gateway) describeConn(ctx context.Context, r *http.Request) (any, bool) {
	info, err := g.edge.Describe(ctx, r.URL.Query().Get("id"))
	return struct {
		*edge.ConnInfo
		Error string
	}{info, text(err)}, info != nil || err != nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// position shows a position as sequence and index.
func position(p message.Position) string { return fmt.Sprintf("%d.%d", p.Seq(), p.Index()) }
