package scenario

import (
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/gauge"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// Result is what a scenario has found.
type Result struct {
	Scenario    Kind           `json:"scenario"`
	Connections int            `json:"connections"`
	Figures     []Figure       `json:"figures"`
	Tally       tally.Counts   `json:"tally"`
	Latency     *Quantiles     `json:"latency,omitempty"` // publication to arrival
	Joins       *Quantiles     `json:"joins,omitempty"`   // connecting to the last subscription
	Answers     *Quantiles     `json:"answers,omitempty"` // of publications
	Publishing  *publish.Stats `json:"publishing,omitempty"`
	Counts      fleet.Counts   `json:"counts"`
	Closes      map[int]int64  `json:"closes,omitempty"` // by close code
	// GeneratorBusy is the share of its time that the generator's busiest
	// thread was working, 0 to 1.
	GeneratorBusy float64  `json:"generator_busy"`
	Notes         []string `json:"notes,omitempty"`

	started  time.Time
	emptyRSS int64 // of the servers before there were connections
	prefix   string
}

// Figure is one number.
type Figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

func (r *Result) add(name, unit string, value float64) {
	r.Figures = append(r.Figures, Figure{r.prefix + name, unit, value})
}

// Figure gives the value of a figure, false if there is none of that name.
func (r *Result) Figure(name string) (float64, bool) {
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

// Clean says whether everything arrived, once and in order, and nothing was
// refused.
func (r *Result) Clean() bool {
	return r.Tally.Clean() && (r.Publishing == nil || r.Publishing.Failed == 0) && r.Counts.Refused == 0
}

// Quantiles are a distribution in milliseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

func quantiles(h *hdrhistogram.Histogram) *Quantiles {
	if h == nil || h.TotalCount() == 0 {
		return nil
	}
	ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
	return &Quantiles{Count: h.TotalCount(), P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1e6}
}

// reading is what the servers, and the kernel, hold at a time.
type reading struct {
	at     time.Time
	cpu    gauge.CPU
	rss    int64
	kernel gauge.Kernel
}

func read(pids []int) (r reading, err error) {
	for _, pid := range pids {
		cpu, err := gauge.ReadCPU(pid)
		if err != nil {
			return r, fmt.Errorf("the server's CPU time: %w", err)
		}
		rss, err := gauge.ReadRSS(pid)
		if err != nil {
			return r, fmt.Errorf("the server's memory: %w", err)
		}
		r.cpu.User += cpu.User
		r.cpu.System += cpu.System
		r.rss += rss
	}
	r.kernel, err = gauge.ReadKernel()
	r.at = time.Now()
	return r, err
}

// watchPeak reads the servers' memory some times a second until the function
// that it returns is called, which gives the highest figures.
func watchPeak(pids []int) func() (rss, tcp int64) {
	stop, done := make(chan struct{}), sync.WaitGroup{}
	var rss, tcp int64
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if r, err := read(pids); err == nil {
				rss, tcp = max(rss, r.rss), max(tcp, r.kernel.TCP)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	return func() (int64, int64) {
		close(stop)
		done.Wait()
		return rss, tcp
	}
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func kb(bytes int64) float64 { return float64(bytes) / 1024 }

// connected reports what making the connections cost.
func (r *Result) connected(before, after reading, a Audience) {
	n := float64(a.Live())
	r.emptyRSS = before.rss
	r.add("connected", "1/s", n/a.Settling().Took().Seconds())
	if before.rss > 0 {
		r.add("CPU per connection", "us", us(after.cpu.Sub(before.cpu).Total())/n)
		r.add("memory per connection", "KB", kb(after.rss-before.rss)/n)
	}
	r.add("kernel memory per connection, both ends", "KB", kb(after.kernel.Slab-before.kernel.Slab)/n)
}

// measured is what was read around some traffic.
type measured struct {
	before, after reading
	connections   int
	took          time.Duration
	busy          time.Duration
	stats         publish.Stats
	latency       *hdrhistogram.Histogram
	tally         tally.Counts
}

// busyShare is from which share of its time on the generator is suspected to
// be the bottleneck.
const busyShare = 0.9

// traffic reports it.
func (r *Result) traffic(m *measured) {
	r.Tally.Add(m.tally)
	r.Latency, r.Answers, r.Publishing = quantiles(m.latency), quantiles(m.stats.Latency), &m.stats
	seconds := m.took.Seconds()
	r.add("published", "1/s", float64(m.stats.Published)/seconds)
	if m.tally.Delivered > 0 {
		r.add("delivered", "1/s", float64(m.tally.Delivered)/seconds)
		r.add("messages per read", "", float64(m.tally.Delivered)/float64(max(m.tally.Reads, 1)))
	}
	if m.before.rss > 0 {
		cpu := m.after.cpu.Sub(m.before.cpu)
		if m.tally.Delivered > 0 {
			r.add("CPU per delivery", "us", us(cpu.Total())/float64(m.tally.Delivered))
			r.add("CPU per delivery, user", "us", us(cpu.User)/float64(m.tally.Delivered))
		}
		r.add("CPU per publication", "us", us(cpu.Total())/float64(max(m.stats.Published, 1)))
		r.add("servers' cores", "", cpu.Total().Seconds()/seconds)
	}
	if m.latency.TotalCount() > 0 {
		r.add("p50", "ms", float64(m.latency.ValueAtQuantile(50))/1e6)
		r.add("p99", "ms", float64(m.latency.ValueAtQuantile(99))/1e6)
	}
	share := m.busy.Seconds() / seconds
	r.GeneratorBusy = max(r.GeneratorBusy, share)
	if share > busyShare {
		r.Notes = append(r.Notes, fmt.Sprintf("the generator was busy for %.0f %% of the time: it may have been the bottleneck; use more workers", 100*share))
	}
}
