package presence

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"text/tabwriter"

	"github.com/carillon-rt/carillon/proto/presence"
)

// shardInfo is one line of the debug page.
type shardInfo struct {
	shard                     int
	role                      string
	incomplete                bool
	channels, members, online int
	gateways                  []presence.Mark
}

// debugPage lists the shards that this node takes part in.
func (s *Service) debugPage() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), debugTimeout)
		defer cancel()
		infos, asked := s.describe(ctx)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if asked < len(s.workers) {
			fmt.Fprintf(w, "%d of %d workers answered\n", asked, len(s.workers))
		}
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(table, "shard\trole\tchannels\tmembers\tonline\tcomplete\tgateways (node, incarnation, last delta)")
		for _, i := range infos {
			fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%d\t%v\t", i.shard, i.role, i.channels, i.members, i.online, !i.incomplete)
			for _, g := range i.gateways {
				fmt.Fprintf(table, "%s %s %d; ", g.Node, g.Incarnation, g.Seq)
			}
			fmt.Fprintln(table)
		}
		table.Flush()
	})
}

// describe asks the workers; asked is how many of them answered in time.
func (s *Service) describe(ctx context.Context) (infos []shardInfo, asked int) {
	for _, w := range s.workers {
		answer := make(chan []shardInfo, 1)
		select {
		case w.commands <- command{describe: answer}:
		case <-w.stopped:
			continue
		case <-ctx.Done():
			continue
		}
		select {
		case part := <-answer:
			asked++
			for _, i := range part {
				if i.role != "none" {
					infos = append(infos, i)
				}
			}
		case <-w.stopped:
		case <-ctx.Done():
		}
	}
	slices.SortFunc(infos, func(a, b shardInfo) int { return a.shard - b.shard })
	return infos, asked
}
