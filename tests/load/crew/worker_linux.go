package crew

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/fleet"
)

// Work is a worker's life: args are what Start has added to its command. It
// does what comes in on standard input until that ends.
func Work(args []string) error {
	if len(args) != 2 {
		return errors.New("a worker is started by carillon bench, not by hand")
	}
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	b, err := openBoard(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &work{row: b.row(number), out: json.NewEncoder(os.Stdout)}
	return errors.Join(w.run(), b.unmap())
}

// work is a worker at work.
type work struct {
	row   *row
	fleet *fleet.Fleet
	in    []byte // orders that are incomplete
	out   *json.Encoder
	ended bool
}

func (w *work) run() error {
	for w.fleet == nil && !w.ended {
		if err := w.Readable(); err != nil {
			return err
		}
	}
	if w.ended {
		return nil
	}
	if err := w.fleet.Watch(syscall.Stdin, w); err != nil {
		return err
	}
	for !w.ended {
		if err := w.fleet.Poll(50 * time.Millisecond); err != nil {
			return err
		}
		w.row.write(w.fleet)
	}
	return w.fleet.Close()
}

// Readable takes orders.
func (w *work) Readable() error {
	var b [64 << 10]byte
	n, err := syscall.Read(syscall.Stdin, b[:])
	if n == 0 && err == nil {
		w.ended = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	w.in = append(w.in, b[:n]...)
	for {
		line, rest, complete := bytes.Cut(w.in, []byte{'\n'})
		if !complete {
			return nil
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("an order: %w", err)
		}
		a, err := w.do(&o)
		if err != nil {
			a.Err = err.Error()
		}
		if err := w.out.Encode(a); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		w.in = rest
	}
}

func (w *work) do(o *order) (a answer, err error) {
	f := w.fleet
	if f == nil && o.Do != "connect" {
		return a, errors.New("the first order must be to connect")
	}
	switch o.Do {
	case "connect":
		w.fleet, err = fleet.New(*o.Plan)
		return a, err
	case "measure":
		err = f.Measure(o.Lanes)
		w.row.write(f)
		return a, err
	case "tally":
		a.Tally, err = f.Tally(o.Published)
		return a, err
	case "latency":
		return histogram(f.Latency())
	case "joins":
		return histogram(f.Joins())
	case "stop reading":
		return a, f.StopReading()
	case "resume reading":
		return a, f.ResumeReading()
	case "churn":
		return a, f.Churn(o.N)
	case "hang":
		err = f.HangAll()
		w.row.write(f)
		return a, err
	case "state":
		return w.state()
	}
	return a, fmt.Errorf("there is no order %q", o.Do)
}

func (w *work) state() (a answer, err error) {
	if err := w.fleet.Err(); err != nil {
		a.Errs = err.Error()
	}
	a.Settled = w.fleet.Settling()
	if a.Busy, err = w.fleet.Busy(); err != nil {
		return a, err
	}
	a.Closes, err = w.fleet.Closes()
	return a, err
}

func histogram(h *hdrhistogram.Histogram, err error) (a answer, _ error) {
	if err != nil {
		return a, err
	}
	a.Histogram, err = h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	return a, err
}
