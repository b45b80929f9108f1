package chaos

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

const (
	// settleWithin is how long after the last fault everybody may take to be
	// told everything.
	settleWithin = 30 * time.Second
	settleLook   = 500 * time.Millisecond
	lookWithin   = 10 * time.Second
	readWithin   = 5 * time.Minute
)

// awaitSubscribers waits until every subscriber has everything that it
// subscribes to on its present connection.
func (w *world) awaitSubscribers() {
	w.t.Helper()
	await.Within(w.t, mendedWithin, "all subscribers are there", func() bool {
		on := map[int]int{} // subscriptions of open sessions
		for _, e := range w.rec.Entries() {
			switch e.Kind {
			case record.Subscribed:
				on[e.Session]++
			case record.Closed:
				delete(on, e.Session)
			}
		}
		complete := 0
		for _, n := range on {
			if n == len(durableChannels)+len(liveChannels)+len(w.presence) {
				complete++
			}
		}
		return complete == subscribers
	})
}

// end publishes once more everywhere, gives what was said the time to reach
// everybody, and returns the record with what the journal and the API say.
func (w *world) end() []record.Entry {
	w.t.Helper()
	w.awaitSubscribers()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	calls := client.API{App: env.AppID, Key: env.Key, Secret: env.Secret, HTTP: &http.Client{Transport: transport, Timeout: attemptMost}}
	last := &publisher{world: w, name: "last", rng: stream(0, "last", 0)}
	for _, channels := range [][]string{durableChannels, liveChannels} {
		for _, channel := range channels {
			w.rec.Add(record.Entry{Kind: record.Final, ID: last.publish(w.t.Context(), calls, channel, true)})
		}
	}
	j, err := openJournal(w.cluster)
	if err != nil {
		w.t.Fatalf("open the journal: %v", err)
	}
	defer j.close()
	if err := w.readAll(j); err != nil {
		w.t.Fatalf("read the journal: %v", err)
	}
	for over := time.Now().Add(settleWithin); ; {
		entries := w.look(calls, j)
		unsettled := model.Check(entries, Channels()).Of(model.Works, model.Presence, model.Gap, model.Stored)
		if len(unsettled) == 0 || time.Now().After(over) || !wait(w.t.Context(), settleLook) {
			return entries
		}
	}
}

// readAll reads what the journal has by now, which is most of what it will
// have: the rest is read again and again, in no time. A server that has just
// come back may lose the reader's consumer: it goes on with another one.
func (w *world) readAll(j *journal) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), readWithin)
	defer cancel()
	for {
		err := j.read(ctx)
		if err == nil || !wait(ctx, settleLook) {
			return err
		}
		w.t.Logf("read the journal: %v; trying on", err)
	}
}

// look adds to the record what the journal has and who is where.
func (w *world) look(calls client.API, j *journal) []record.Entry {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), lookWithin)
	defer cancel()
	if err := j.read(ctx); err != nil {
		w.t.Logf("read the journal: %v", err)
	}
	var rosters []record.Entry
	for _, n := range w.apis {
		for _, channel := range w.presence {
			calls.Base = "http://" + n.API()
			users, err := calls.Users(ctx, channel)
			if err != nil {
				w.t.Logf("%s does not say who is on %s: %v", n.Name, channel, err)
			}
			rosters = append(rosters, record.Entry{Kind: record.Roster, Channel: channel, Users: users, Text: n.Name})
		}
	}
	return slices.Concat(w.rec.Entries(), rosters, j.entries)
}
