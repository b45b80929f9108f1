package scenario

import (
	"fmt"
	"time"
)

// idle waits, and says what being there costs.
func (x *run) idle() error {
	x.phase = "idle"
	if err := x.wait(x.Warmup); err != nil {
		return err
	}
	before, err := read(x.Servers)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := x.wait(x.Length); err != nil {
		return err
	}
	after, err := read(x.Servers)
	if err != nil {
		return err
	}
	if len(x.Servers) > 0 {
		cpu := after.cpu.Sub(before.cpu).Total()
		x.r.add("CPU per connection and second", "us", float64(cpu.Nanoseconds())/1e3/float64(x.a.Live())/time.Since(began).Seconds())
		x.r.add("memory per connection after that", "KB", kb(after.rss-x.r.emptyRSS)/float64(x.a.Live()))
	}
	return nil
}

// wait polls for a time.
func (x *run) wait(d time.Duration) error {
	for end := time.Now().Add(d); ; {
		rest := time.Until(end)
		if rest <= 0 {
			return nil
		}
		if err := x.poll(min(rest, 50*time.Millisecond)); err != nil {
			return err
		}
	}
}

// churn has connections leave their last channel and join it again.
func (x *run) churn() error {
	x.phase = "churning"
	before, err := read(x.Servers)
	if err != nil {
		return err
	}
	began, was, asked := time.Now(), x.a.Counts(), 0
	for time.Since(began) < x.Length {
		due := int(time.Since(began).Seconds() * x.Rate)
		if x.Rate == 0 {
			open := x.a.Counts()
			due = asked + max(0, max(x.Window, 1)-int(open.Unsubscribed-open.Subscribed))
		}
		if n := due - asked; n > 0 {
			if err := x.a.Churn(n); err != nil {
				return err
			}
			asked = due
		}
		if err := x.poll(time.Millisecond); err != nil {
			return err
		}
	}
	done := func() bool { c := x.a.Counts(); return c.Subscribed >= c.Unsubscribed-c.Lost }
	if err := x.until(done, x.Within); err != nil {
		return fmt.Errorf("subscriptions are not answered: %w", err)
	}
	took := time.Since(began)
	after, err := read(x.Servers)
	if err != nil {
		return err
	}
	n := float64(x.a.Counts().Subscribed - was.Subscribed)
	x.r.add("left and joined again", "1/s", n/took.Seconds())
	if len(x.Servers) > 0 && n > 0 {
		x.r.add("CPU per leave and join", "us", us(after.cpu.Sub(before.cpu).Total())/n)
	}
	return nil
}

// storm loses all connections at once and waits for all to be back.
func (x *run) storm() error {
	x.phase = "all come back"
	before, err := read(x.Servers)
	if err != nil {
		return err
	}
	was, n := x.a.Counts(), x.a.Live()
	began := time.Now()
	if err := x.a.HangAll(); err != nil {
		return err
	}
	if err := x.until(func() bool { return x.a.Live() >= n }, x.Within); err != nil {
		return fmt.Errorf("%d of %d connections are back: %w; %w", x.a.Live(), n, err, orNone(x.a.Err()))
	}
	took := time.Since(began)
	after, err := read(x.Servers)
	if err != nil {
		return err
	}
	x.r.add("all back after", "s", took.Seconds())
	x.r.add("came back", "1/s", float64(n)/took.Seconds())
	x.r.add("refused", "connections", float64(x.a.Counts().Refused-was.Refused))
	if len(x.Servers) > 0 {
		x.r.add("CPU per return", "us", us(after.cpu.Sub(before.cpu).Total())/float64(n))
	}
	return nil
}

// slow measures traffic twice: with everybody reading, and while some do not.
func (x *run) slow() error {
	x.pick = x.picker()
	x.phase = "everybody reads"
	if x.Warmup > 0 {
		if _, err := x.publishFor(x.Warmup); err != nil {
			return err
		}
	}
	if err := x.spare(); err != nil {
		return err
	}
	x.r.add("messages a second", "1/s", x.Rate)
	peak := watchPeak(x.Servers)
	calm, err := x.measured(x.Length)
	calmRSS, calmTCP := peak()
	if err != nil {
		return err
	}
	x.r.prefix = "everybody reads: "
	x.r.traffic(calm)
	x.phase = "some do not read"
	deaf := x.Plan.SlowConnections(x.Plan.Connections)
	peak = watchPeak(x.Servers)
	if err := x.a.StopReading(); err != nil {
		return err
	}
	some, err := x.measured(x.Length)
	peakRSS, peakTCP := peak()
	if err != nil {
		return err
	}
	x.r.prefix = "some do not read: "
	x.r.traffic(some)
	x.r.prefix = ""
	x.r.add("p99 with slow readers / without", "x", ratio(some.latency.ValueAtQuantile(99), calm.latency.ValueAtQuantile(99)))
	x.r.add("memory per slow reader, user", "KB", kb(peakRSS-calmRSS)/float64(deaf))
	x.r.add("memory per slow reader, kernel", "KB", kb(peakTCP-calmTCP)/float64(deaf))
	if err := x.a.ResumeReading(); err != nil {
		return err
	}
	if err := x.wait(time.Second); err != nil {
		return err
	}
	x.r.add("slow readers that were closed", "connections", float64(deaf-(x.a.Live()-(x.Plan.Connections-deaf))))
	return nil
}

// spareFor is how long it is measured what the servers take.
const spareFor = 3 * time.Second

// spare makes the rate and the length such that the servers take no more than
// the setup's cores for as many messages: near the limit of a machine any delay
// grows, whoever reads.
func (x *run) spare() error {
	if x.Cores == 0 {
		return nil
	}
	m, err := x.measured(spareFor)
	if err != nil {
		return err
	}
	share := x.Cores / (m.after.cpu.Sub(m.before.cpu).Total().Seconds() / m.took.Seconds())
	if share < 1 {
		x.Rate *= share
		x.Length = time.Duration(float64(x.Length) / share)
	}
	return nil
}

func ratio(a, b int64) float64 { return float64(a) / float64(max(b, 1)) }
