package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/carillon-rt/carillon/tests/load/clock"
	"github.com/carillon-rt/carillon/tests/load/crew"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/gauge"
	"github.com/carillon-rt/carillon/tests/load/null"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/scenario"
)

// report is what --json writes.
type report struct {
	When    time.Time        `json:"when"`
	Machine string           `json:"machine"`
	Run     *Run             `json:"run"`
	Check   *scenario.Result `json:"check,omitempty"` // the generator against the null server
	Result  *scenario.Result `json:"result"`
}

// Run runs the scenario and reports it. The result is an error when messages
// were lost, came twice or out of order.
func (r *Run) Run(ctx context.Context, s Streams) error {
	r.defaults()
	rep := &report{When: time.Now(), Machine: machine(), Run: r}
	runtime.LockOSThread() // the connections' thread, whose CPU time is read
	defer runtime.UnlockOSThread()
	if err := clock.Precise(); err != nil {
		return err
	}
	if !r.NoCheck {
		var err error
		if rep.Check, err = r.check(ctx); err != nil {
			return fmt.Errorf("the generator's own check: %w", err)
		}
	}
	p := newProgress(s.Err)
	res, err := r.against(ctx, p.show)
	p.end()
	if err != nil {
		return err
	}
	rep.Result = res
	rep.judge()
	if err := rep.write(r.JSON, s.Out); err != nil {
		return err
	}
	if !res.Tally.Clean() {
		return fmt.Errorf("not everything arrived as it was published: %+v", res.Tally)
	}
	return nil
}

// plan is the connections that the flags describe.
func (r *Run) plan() (fleet.Plan, error) {
	addrs, err := hosts(r.URL)
	return fleet.Plan{
		Addrs: addrs, From: r.From, Dialect: r.Dialect, Key: r.Key, Secret: r.Secret, Token: r.Token, Connections: r.Connections,
		Own: r.Own, Shared: r.Shared, Spread: r.Spread, Prefix: r.Prefix,
		Rate: r.ConnectRate, AtOnce: r.AtOnce, Slow: r.Slow, Ping: r.Ping,
	}, err
}

// against runs the scenario against the server.
func (r *Run) against(ctx context.Context, show func(scenario.Progress)) (*scenario.Result, error) {
	plan, err := r.plan()
	if err != nil {
		return nil, err
	}
	setup := scenario.Setup{
		Kind: scenario.Kind(r.Scenario), Plan: plan, Length: r.Length, Warmup: r.Warmup, Within: r.Within,
		Rate: r.Rate, Window: r.Window, Mix: r.Mix, Servers: r.PID, Progress: show,
	}
	switch r.Scenario {
	case "presence":
		setup.Kind = scenario.Churn
	case "storm":
		setup.Plan.Again = true
	}
	plan = setup.Plan
	if r.Via == "batch" || r.Via == "nats" {
		setup.Each = r.Batch
	}
	if len(setup.Servers) == 0 {
		if pid, err := gauge.Listening(plan.Addrs[0]); err == nil && pid != 0 {
			setup.Servers = []int{pid}
		}
	}
	a, err := r.audience(plan)
	if err != nil {
		return nil, err
	}
	p, err := r.publisher(plan, a)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	res, err := scenario.Run(ctx, setup, a, p)
	if p != nil {
		err = errors.Join(err, p.Close())
	}
	return res, errors.Join(err, a.Close())
}

// audience makes the connections' processes: this one if it has room.
func (r *Run) audience(plan fleet.Plan) (scenario.Audience, error) {
	workers := r.Workers
	if workers == 0 && plan.Connections > fleet.ConnectionsMax {
		workers = (plan.Connections + fleet.ConnectionsMax - 1) / fleet.ConnectionsMax
	}
	if workers == 0 {
		return fleet.New(plan)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return crew.Start([]string{self, "bench", "worker"}, plan, workers, 0)
}

// publisher is how the scenario publishes, nil if it does not.
func (r *Run) publisher(plan fleet.Plan, a scenario.Audience) (publish.Publisher, error) {
	if slices.Contains([]string{"connect", "idle", "churn", "presence", "storm"}, r.Scenario) {
		return nil, nil
	}
	m := publish.Message{Name: plan.Name, Bytes: r.Size}
	switch r.Via {
	case "nats":
		return publish.NewNATS(r.NATS, r.App, m, r.Batch, r.Publishers, a.Now)
	case "router":
		return publish.NewRouter(r.NATS, r.App, m, 1, r.Publishers, a.Now)
	case "socket":
		f, ok := a.(*fleet.Fleet)
		if !ok {
			return nil, errors.New("--via socket needs the connections in one process")
		}
		return publish.NewSocket(m, a.Now, func(payload []byte) { f.SendText(0, payload) })
	}
	api := plan.Addrs[0]
	if r.API != "" {
		list, err := hosts([]string{r.API})
		if err != nil {
			return nil, err
		}
		api = list[0]
	}
	batch := 0
	if r.Via == "batch" {
		batch = r.Batch
	}
	return publish.NewHTTP(publish.App{Addr: api, ID: r.App, Key: r.Key, Secret: r.Secret}, m, r.Publishers, batch, a.Now)
}

const (
	checkConnections = 1000
	checkLength      = time.Second
)

// check measures the generator against the null server.
func (r *Run) check(ctx context.Context) (*scenario.Result, error) {
	addr, stop, err := StartNull()
	if err != nil {
		return nil, err
	}
	defer stop()
	n := min(r.Connections, checkConnections)
	plan := fleet.Plan{Addrs: []string{addr}, Dialect: "raw", Connections: n, Shared: 1}
	f, err := fleet.New(plan)
	if err != nil {
		return nil, err
	}
	p, err := publish.NewSocket(publish.Message{Name: plan.Name, Bytes: r.Size}, f.Now, func(b []byte) { f.SendText(0, b) })
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	pid, err := gauge.Listening(addr)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	res, err := scenario.Run(ctx, scenario.Setup{
		Kind: scenario.Fanout, Plan: plan, Length: checkLength, Warmup: checkLength / 4, Within: r.Within, Window: max(r.Window, 1), Servers: []int{pid},
	}, f, p)
	return res, errors.Join(err, f.Close())
}

// StartNull starts the null server as a process of its own, which stop ends.
func StartNull() (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "bench", "null")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the null server: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// Run runs the null server until it is killed.
func (n Null) Run(s Streams) error { return null.Run(n.Listen, n.Slow, 0, s.Out) }

// Run is a worker's life.
func (w Worker) Run() error { return crew.Work(w.Args) }

// nearLimit is from which share of what the null server reached on the
// generator itself is the likely limit.
const nearLimit = 0.7

// judge says whether the generator can have been the limit.
func (r *report) judge() {
	if r.Check == nil || r.Run.Rate > 0 {
		return
	}
	own, ok1 := r.Check.Figure("delivered")
	got, ok2 := r.Result.Figure("delivered")
	if ok1 && ok2 && got > nearLimit*own {
		r.Result.Notes = append(r.Result.Notes, fmt.Sprintf(
			"%s deliveries/s are near the %s/s that the generator reaches with the null server: the server may be faster than this shows", number(got), number(own)))
	}
}

func (r *report) write(file string, out io.Writer) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	switch file {
	case "":
	case "-":
		_, err := out.Write(raw)
		return err
	default:
		if err := os.WriteFile(file, raw, 0o644); err != nil {
			return err
		}
	}
	return r.print(out)
}

// print writes the report for people.
func (r *report) print(out io.Writer) error {
	res := r.Result
	fmt.Fprintf(out, "%s, %d connections, on %s\n\n", r.Run.Scenario, res.Connections, r.Machine)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range res.Figures {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", f.Name, number(f.Value), f.Unit)
	}
	for _, q := range []struct {
		name string
		q    *scenario.Quantiles
	}{{"publication to arrival", res.Latency}, {"connect to subscribed", res.Joins}, {"answer to a publication", res.Answers}} {
		if q.q != nil {
			fmt.Fprintf(t, "  %s\tp50 %s  p90 %s  p99 %s  p99.9 %s  max %s\tms\n", q.name,
				number(q.q.P50), number(q.q.P90), number(q.q.P99), number(q.q.P999), number(q.q.Max))
		}
	}
	if r.Check != nil {
		d, _ := r.Check.Figure("delivered")
		c, _ := r.Check.Figure("connected")
		fmt.Fprintf(t, "  the generator with the null server\t%s delivered, %s connected\t1/s\n", number(d), number(c))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n  delivered %d, missing %d, duplicates %d, out of order %d, unexpected %d; connections refused %d, lost %d\n",
		res.Tally.Delivered, res.Tally.Missing, res.Tally.Duplicates, res.Tally.Disordered, res.Tally.Unexpected, res.Counts.Refused, res.Counts.Lost)
	if p := res.Publishing; p != nil && p.Failed > 0 {
		fmt.Fprintf(out, "  %d publications were refused, the first with %s\n", p.Failed, p.FirstFailure)
	}
	if len(res.Closes) > 0 {
		fmt.Fprintf(out, "  closed by the server, by code: %v\n", res.Closes)
	}
	for _, note := range res.Notes {
		fmt.Fprintf(out, "  note: %s\n", note)
	}
	return nil
}

// progress is a line on a terminal that is written over and over.
type progress struct {
	out  io.Writer // nil: nobody watches
	last int
}

func newProgress(out io.Writer) *progress {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &progress{out: out}
		}
	}
	return &progress{}
}

func (p *progress) show(at scenario.Progress) {
	if p.out == nil {
		return
	}
	line := fmt.Sprintf("%4.0f s  %s: %d connections, %d published, %d delivered, %d refused, %d lost", at.Elapsed.Seconds(), at.Phase,
		at.Live, at.Published, at.Counts.Delivered, at.Counts.Refused, at.Counts.Lost)
	fmt.Fprintf(p.out, "\r%-*s", p.last, line)
	p.last = len(line)
}

func (p *progress) end() {
	if p.out != nil && p.last > 0 {
		fmt.Fprintf(p.out, "\r%-*s\r", p.last, "")
	}
}
