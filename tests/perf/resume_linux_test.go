package perf

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

var (
	resumers   = flag.Int("resume-clients", 500, "clients that lose their gateway")
	resumeRate = flag.Float64("resume-rate", 100, "messages a second meanwhile")
)

// TestResume: all subscribers of one durable channel lose their gateway by
// kill -9 while messages are published. All come back on another one, and
// nobody misses a message, or gets one twice or out of order. `make resume`
// runs it with ten thousand.
func TestResume(t *testing.T) {
	const before, after, publishers = 2 * time.Second, 6 * time.Second, 4
	c := env.Start(t, env.Apart(2), env.HistorySize(100_000))
	f, err := fleet.New(fleet.Plan{
		Addrs: []string{c.Gateways[0].Public(), c.Gateways[1].Public()}, Failover: true, Again: true, Resume: true,
		Dialect: "pusher", Key: env.Key, Secret: env.Secret, Connections: *resumers, Shared: 1, Prefix: "durable-",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run := &resumption{t: t, fleet: f}
	run.until("all are subscribed", func() bool { return f.Connected() && f.Live() == *resumers })
	if err := f.Measure(publishers); err != nil {
		t.Fatal(err)
	}
	run.pub, err = publish.NewHTTP(publish.App{Addr: c.API.API(), ID: env.AppID, Key: env.Key, Secret: env.Secret},
		publish.Message{Bytes: 64, Event: "bench", Name: func(int) string { return "durable-bench-0" }}, publishers, 0, f.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer run.pub.Close()

	run.publish(before)
	killed := f.Now()
	c.Gateways[0].Kill()
	run.publish(after)
	run.until("all are back", func() bool { return f.Connected() && f.Live() == *resumers })
	back := time.Duration(f.Settling().At - killed)
	run.until("everything is published and has arrived", func() bool {
		stats := run.pub.Stats()
		return stats.Unanswered() == 0 && run.tally().Missing == 0
	})
	sum, counts := run.tally(), f.Counts()
	t.Logf("%d clients: the last was back %s after the kill; %d recovered, %d not; %d messages published, %d delivered, latency p50 %s, max %s",
		*resumers, back.Round(time.Millisecond), counts.Recovered, counts.Unrecovered, run.pub.Stats().Published, sum.Delivered,
		run.latency(50), run.latency(100))
	t.Logf("histories: %.0f reads from the routers; %.0f questions answered from memory, %.0f by another one's read",
		total(t, c.Gateways[1], "carillon_gateway_history_reads_total"),
		total(t, c.Gateways[1], `carillon_gateway_history_questions_total{reason="memory"}`),
		total(t, c.Gateways[1], `carillon_gateway_history_questions_total{reason="joined"}`))
	if !sum.Clean() {
		t.Errorf("%+v, want everything once and in order", sum)
	}
	if int(counts.Recovered) < *resumers || counts.Unrecovered > 0 {
		t.Errorf("%d of %d recovered, %d did not: %v", counts.Recovered, *resumers, counts.Unrecovered, f.Err())
	}
	if stats := run.pub.Stats(); stats.Failed > 0 {
		t.Errorf("%d publications failed", stats.Failed)
	}
}

// resumption is a fleet and who publishes to it, in one goroutine.
type resumption struct {
	t     *testing.T
	fleet *fleet.Fleet
	pub   *publish.HTTP // nil before there is one
}

// publish publishes at the rate for a time.
func (r *resumption) publish(d time.Duration) {
	r.t.Helper()
	for begun, sent := time.Now(), 0; time.Since(begun) < d; {
		for ; sent < int(time.Since(begun).Seconds()**resumeRate) && r.pub.Ready(); sent++ {
			if err := r.pub.Publish(r.fleet.Now(), 0); err != nil {
				r.t.Fatal(err)
			}
		}
		r.poll()
	}
}

func (r *resumption) poll() {
	r.t.Helper()
	if err := r.fleet.Poll(time.Millisecond); err != nil {
		r.t.Fatal(err)
	}
	if r.pub == nil {
		return
	}
	if err := r.pub.Poll(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *resumption) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); r.poll() {
		if time.Now().After(end) {
			r.t.Fatalf("not within a minute: %s; %d of %d are there, %+v, %v", what, r.fleet.Live(), *resumers, r.fleet.Counts(), r.fleet.Err())
		}
	}
}

func (r *resumption) tally() tally.Counts {
	r.t.Helper()
	sum, err := r.fleet.Tally(r.pub.Published())
	if err != nil {
		r.t.Fatal(err)
	}
	return sum
}

func (r *resumption) latency(q float64) time.Duration {
	r.t.Helper()
	h, err := r.fleet.Latency()
	if err != nil {
		r.t.Fatal(err)
	}
	return time.Duration(h.ValueAtQuantile(q)).Round(10 * time.Microsecond)
}

// total adds up the samples of a node whose names begin with a prefix.
func total(t *testing.T, node *env.Node, prefix string) (sum float64) {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s/metrics", node.Ops()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		fields := strings.Fields(line)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, err)
		}
		sum += n
	}
	return sum
}
