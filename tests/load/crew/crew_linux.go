// Package crew shares a load among processes, because one has too few
// descriptors for it, or too few cores. Each worker is a fleet that does what
// it is told over its standard input; how far it has come it writes into
// memory that all share, where looking costs nothing.
package crew

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/clock"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// WorkersMax is how many workers a crew may have.
const WorkersMax = 256

// order is what a worker is told, one JSON document a line.
type order struct {
	Do        string          `json:"do"`
	Plan      *fleet.Plan     `json:"plan,omitempty"`
	Lanes     int             `json:"lanes,omitempty"`
	N         int             `json:"n,omitempty"`
	Published fleet.Published `json:"published,omitempty"`
}

// answer is what it says to that.
type answer struct {
	Err       string         `json:"err,omitempty"`
	Tally     tally.Counts   `json:"tally"`
	Histogram []byte         `json:"histogram,omitempty"`
	Closes    map[int]int64  `json:"closes,omitempty"`
	Busy      time.Duration  `json:"busy,omitempty"`
	Errs      string         `json:"errs,omitempty"`
	Settled   fleet.Settling `json:"settled"`
}

// Crew is a number of workers. It is for one goroutine.
type Crew struct {
	// immutable after Start
	clock    clock.Clock
	board    *board
	command  []string
	parallel int

	plans   []fleet.Plan // of the workers that are not started yet
	workers []*worker
	epoll   int
	watch   []fleet.Watcher
	turn    int
}

// worker is one process.
type worker struct {
	cmd  *exec.Cmd
	in   *json.Encoder
	out  *bufio.Reader
	pipe interface{ Close() error }
	errs *tail
}

// Start starts the workers: command is how a worker is run, to which the path
// of the shared memory and the worker's number are added. Only so many make
// their connections at a time, 0 for all: a hundred processes that connect
// side by side on two cores spend their time on getting out of each other's
// way.
func Start(command []string, p fleet.Plan, workers, parallel int) (*Crew, error) {
	if workers < 1 || workers > WorkersMax {
		return nil, fmt.Errorf("%d workers, want 1 to %d", workers, WorkersMax)
	}
	c := &Crew{epoll: -1, command: command, parallel: parallel, plans: p.Split(workers)}
	if c.parallel <= 0 {
		c.parallel = workers
	}
	for i := range c.plans {
		if err := c.plans[i].Validate(); err != nil {
			return nil, err
		}
	}
	var err error
	if c.clock, err = clock.New(); err != nil {
		return nil, err
	}
	if c.board, err = newBoard(); err != nil {
		return nil, err
	}
	if c.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll_create1: %w", err), c.Close())
	}
	if err := c.startNext(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// startNext starts workers while fewer than allowed are connecting.
func (c *Crew) startNext() error {
	connecting := 0
	for i := range c.workers {
		if !c.board.row(i).connected() {
			connecting++
		}
	}
	for ; connecting < c.parallel && len(c.plans) > 0; connecting++ {
		w, err := startWorker(c.command, c.board.path, len(c.workers))
		if err != nil {
			return err
		}
		c.workers = append(c.workers, w)
		if _, err := w.ask(order{Do: "connect", Plan: &c.plans[0]}); err != nil {
			return err
		}
		c.plans = c.plans[1:]
	}
	return nil
}

func startWorker(command []string, board string, i int) (*worker, error) {
	cmd := exec.Command(command[0], append(command[1:], board, fmt.Sprint(i))...)
	w := &worker{cmd: cmd, errs: &tail{}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in, w.out, w.pipe = json.NewEncoder(in), bufio.NewReaderSize(out, 1<<20), in
	cmd.Stderr = w.errs
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	return w, nil
}

// ask gives an order and waits for the answer.
func (w *worker) ask(o order) (a answer, err error) {
	if err := w.in.Encode(o); err != nil {
		return a, w.failed(err)
	}
	return w.hear()
}

func (w *worker) hear() (a answer, err error) {
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return a, w.failed(err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, w.failed(err)
	}
	if a.Err != "" {
		return a, fmt.Errorf("worker: %s", a.Err)
	}
	return a, nil
}

func (w *worker) failed(err error) error {
	return fmt.Errorf("worker %d: %w; it said: %s", w.cmd.Process.Pid, err, w.errs)
}

// all gives an order to all workers at once, and then hears the answers.
func (c *Crew) all(o order, each func(answer) error) error {
	var errs []error
	for _, w := range c.workers {
		if err := w.in.Encode(o); err != nil {
			return w.failed(err)
		}
	}
	for _, w := range c.workers {
		a, err := w.hear()
		if err == nil && each != nil {
			err = each(a)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Watch implements scenario.Audience.
func (c *Crew) Watch(fd int, w fleet.Watcher) error {
	c.watch = append(c.watch, w)
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(len(c.watch) - 1)}
	return syscall.EpollCtl(c.epoll, syscall.EPOLL_CTL_ADD, fd, &ev)
}

// Poll implements scenario.Audience: the workers go on by themselves, and a
// millisecond later there is something new on the board.
func (c *Crew) Poll(timeout time.Duration) error {
	if len(c.plans) > 0 {
		if err := c.startNext(); err != nil {
			return err
		}
	}
	var events [16]syscall.EpollEvent
	wait := 1
	if timeout < time.Millisecond {
		wait = 0
	}
	n, err := syscall.EpollWait(c.epoll, events[:], wait)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for _, ev := range events[:max(n, 0)] {
		if err := c.watch[ev.Fd].Readable(); err != nil {
			return err
		}
	}
	return nil
}

// Connected implements scenario.Audience.
func (c *Crew) Connected() bool {
	if len(c.plans) > 0 {
		return false
	}
	for i := range c.workers {
		if !c.board.row(i).connected() {
			return false
		}
	}
	return true
}

// Counts implements scenario.Audience.
func (c *Crew) Counts() (sum fleet.Counts) {
	for i := range c.workers {
		sum.Add(c.board.row(i).counts())
	}
	return sum
}

// Live implements scenario.Audience.
func (c *Crew) Live() (n int) {
	for i := range c.workers {
		n += c.board.row(i).live()
	}
	return n
}

// Now implements scenario.Audience.
func (c *Crew) Now() int64 { return c.clock.Now() }

// Measure implements scenario.Audience.
func (c *Crew) Measure(lanes int) error { return c.all(order{Do: "measure", Lanes: lanes}, nil) }

// Tally implements scenario.Audience.
func (c *Crew) Tally(published fleet.Published) (sum tally.Counts, err error) {
	err = c.all(order{Do: "tally", Published: published}, func(a answer) error {
		sum.Add(a.Tally)
		return nil
	})
	return sum, err
}

// Latency implements scenario.Audience.
func (c *Crew) Latency() (*hdrhistogram.Histogram, error) { return c.histogram("latency") }

// Joins implements scenario.Audience.
func (c *Crew) Joins() (*hdrhistogram.Histogram, error) { return c.histogram("joins") }

func (c *Crew) histogram(which string) (sum *hdrhistogram.Histogram, err error) {
	err = c.all(order{Do: which}, func(a answer) error {
		h, err := hdrhistogram.Decode(a.Histogram)
		if err != nil {
			return fmt.Errorf("a worker's histogram: %w", err)
		}
		if sum == nil {
			sum = h
			return nil
		}
		sum.Merge(h)
		return nil
	})
	return sum, err
}

// Closes implements scenario.Audience.
func (c *Crew) Closes() (map[int]int64, error) {
	sum := map[int]int64{}
	err := c.all(order{Do: "state"}, func(a answer) error {
		for code, n := range a.Closes {
			sum[code] += n
		}
		return nil
	})
	return sum, err
}

// Settling implements scenario.Audience.
func (c *Crew) Settling() (all fleet.Settling) {
	err := c.all(order{Do: "state"}, func(a answer) error {
		if all.Began == 0 || a.Settled.Began < all.Began {
			all.Began = a.Settled.Began
		}
		all.At = max(all.At, a.Settled.At)
		return nil
	})
	if err != nil {
		return fleet.Settling{}
	}
	return all
}

// Err implements scenario.Audience.
func (c *Crew) Err() error {
	var errs []error
	err := c.all(order{Do: "state"}, func(a answer) error {
		if a.Errs != "" && len(errs) < 5 {
			errs = append(errs, errors.New(a.Errs))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// StopReading implements scenario.Audience.
func (c *Crew) StopReading() error { return c.all(order{Do: "stop reading"}, nil) }

// ResumeReading implements scenario.Audience.
func (c *Crew) ResumeReading() error { return c.all(order{Do: "resume reading"}, nil) }

// Churn implements scenario.Audience.
func (c *Crew) Churn(n int) error {
	share := (n + len(c.workers) - 1) / len(c.workers)
	for ; n > 0; n -= share {
		if _, err := c.workers[c.turn].ask(order{Do: "churn", N: min(share, n)}); err != nil {
			return err
		}
		c.turn = (c.turn + 1) % len(c.workers)
	}
	return nil
}

// HangAll implements scenario.Audience.
func (c *Crew) HangAll() error { return c.all(order{Do: "hang"}, nil) }

// Busy implements scenario.Audience: of the busiest worker.
func (c *Crew) Busy() (most time.Duration, err error) {
	err = c.all(order{Do: "state"}, func(a answer) error {
		most = max(most, a.Busy)
		return nil
	})
	return most, err
}

// Close ends the workers, which close their connections.
func (c *Crew) Close() error {
	var errs []error
	for _, w := range c.workers {
		errs = append(errs, w.pipe.Close())
	}
	for _, w := range c.workers {
		if err := w.cmd.Wait(); err != nil {
			errs = append(errs, w.failed(err))
		}
	}
	c.workers = nil
	if c.epoll >= 0 {
		errs = append(errs, syscall.Close(c.epoll))
		c.epoll = -1
	}
	return errors.Join(append(errs, c.board.remove())...)
}

// tail keeps the end of what a worker writes to its standard error.
type tail struct {
	mu sync.Mutex
	// guarded by mu
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-4096):]
	return len(p), nil
}

// String is what was written last.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
