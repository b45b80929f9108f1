package router

import (
	"fmt"
	"net/http"
	"text/tabwriter"
)

// partitionsPage is /debug/partitions.
type partitionsPage struct{ r *Router }

// ServeHTTP lists what waits to be written and what is followed.
func (p partitionsPage) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	parts := p.r.parts.Load()
	if parts == nil {
		fmt.Fprintln(w, "the streams are not set up yet")
		return
	}
	fmt.Fprintf(w, "partitions %d  epoch %s  takes plain publishes: %v\n\nwriting\n", parts.partitions, parts.journal.Epoch(), p.r.ownsIngest())
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "partition\tdurable waiting\tlive waiting\t")
	for i := range parts.partitions {
		s := parts.writers.State(i)
		fmt.Fprintf(table, "%d\t%d\t%d\t\n", i, s.DurableWaiting, s.LiveWaiting)
	}
	table.Flush()
	fmt.Fprintln(w, "\nfollowing")
	fmt.Fprintln(table, "partition\tcaught up\tlast sequence\tchannels\tbytes\tevicted\trequests waiting\tepoch\t")
	for _, s := range parts.followers.States() {
		fmt.Fprintf(table, "%d\t%v\t%d\t%d\t%d\t%d\t%d\t%s\t\n",
			s.Partition, s.CaughtUp, s.Last, s.Channels, s.Bytes, s.Evicted, s.Waiting, s.Epoch)
	}
	table.Flush()
}
