package chaos

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

const (
	// countsWithin is how long after a round the API may say something wrong, as
	// long as nodes learn who else has lived through it (docs/cluster.md, P5).
	countsWithin = 10 * time.Second
	askEvery     = 300 * time.Millisecond
	// A machine stands still when somebody who wants to run after looksEvery does
	// so standstill later: presence nodes take who is silent for 0.6 s for dead.
	looksEvery = 50 * time.Millisecond
	standstill = 400 * time.Millisecond
	// quietMost is how long a machine that stands still again and again is given.
	quietMost = time.Minute
)

// watchMachine counts when the machine stands still.
func (w *world) watchMachine(ctx context.Context) {
	for last := time.Now(); wait(ctx, looksEvery); last = time.Now() {
		if late := time.Since(last) - looksEvery; late > standstill {
			w.stalls.Add(1)
			w.rec.Add(record.Entry{Kind: record.Stalled, Text: late.String()})
		}
	}
}

// stayQuiet leaves everything alone for a while, and asks the API all the time
// who is where: at least so long, until what it says has been right for some
// time, or until it is too late for that.
func (w *world) stayQuiet(least time.Duration) {
	w.t.Helper()
	w.rec.Add(record.Entry{Kind: record.Mended})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	calls := client.API{App: env.AppID, Key: env.Key, Secret: env.Secret, HTTP: &http.Client{Transport: transport, Timeout: attemptMost}}
	settled, stalls, last := false, w.stalls.Load(), time.Now().Add(quietMost)
	for begun := time.Now(); ; {
		w.ask(calls)
		if n := w.stalls.Load(); n != stalls && time.Now().Before(last) { // from the beginning
			settled, stalls, begun = false, n, time.Now()
		}
		past := time.Since(begun)
		right := true
		if !settled {
			right, settled = model.Settled(w.rec.Entries(), Channels())
		}
		tooLate := !right && past >= countsWithin || !time.Now().Before(last)
		if settled && past >= least || tooLate || !wait(w.t.Context(), askEvery) {
			return
		}
	}
}

// ask asks every api node for every channel.
func (w *world) ask(calls client.API) {
	w.rounds++
	for _, n := range w.apis {
		calls.Base = "http://" + n.API()
		for _, channel := range slices.Concat(durableChannels, liveChannels, w.presence) {
			e := record.Entry{Kind: record.Counts, Text: n.Name, Channel: channel, Round: w.rounds, Since: w.rec.Now().Microseconds()}
			if err := askFor(w.t.Context(), calls, channel, &e); err != nil {
				e.Why = err.Error()
			}
			w.rec.Add(e)
		}
	}
}

func askFor(ctx context.Context, calls client.API, channel string, e *record.Entry) error {
	counts, err := calls.Counts(ctx, channel)
	if err != nil {
		return err
	}
	e.Count, e.UserCount = counts.Subscriptions, counts.Users
	if Channels().Presence(channel) {
		e.Users, err = calls.Users(ctx, channel)
	}
	return err
}
