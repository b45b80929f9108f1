package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

const (
	retryEvery = 100 * time.Millisecond
	// attemptMost is how long one attempt may take: more than a node that lives
	// needs to say that it can't.
	attemptMost = 5 * time.Second
	// persist is how long a keyed publication is tried again: less than the two
	// minutes for which its key is remembered.
	persist = 100 * time.Second
	// eventName is the name of all events.
	eventName = "said"
)

// publisher publishes one event after the other through any api node.
type publisher struct {
	world *world
	name  string
	every time.Duration
	rng   *rand.Rand
	sent  int
}

func (p *publisher) run(ctx context.Context) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	calls := client.API{App: env.AppID, Key: env.Key, Secret: env.Secret, HTTP: &http.Client{Transport: transport, Timeout: attemptMost}}
	for wait(ctx, jitter(p.rng, p.every)) {
		channel := durableChannels[p.rng.IntN(len(durableChannels))]
		keyed := p.rng.IntN(5) > 0
		if p.rng.IntN(4) == 0 {
			channel = liveChannels[p.rng.IntN(len(liveChannels))]
			keyed = p.rng.IntN(5) == 0
		}
		// What was begun is finished when the run is over: the record has an
		// answer for each.
		p.publish(context.WithoutCancel(ctx), calls, channel, keyed)
	}
}

// publish publishes one event: with a key until it is taken, else once.
func (p *publisher) publish(ctx context.Context, calls client.API, channel string, keyed bool) (id string) {
	ctx, cancel := context.WithTimeout(ctx, persist)
	defer cancel()
	p.sent++
	id = fmt.Sprintf("%s/%d", p.name, p.sent)
	event := client.Event{Name: eventName, Data: id, Channels: []string{channel}}
	if keyed {
		event.IdempotencyKey = id
	}
	p.world.rec.Add(record.Entry{Kind: record.Publish, Actor: p.name, Channel: channel, ID: id, Keyed: keyed})
	for attempts := 0; ; attempts++ {
		taken, refused, why := p.attempt(ctx, calls, event)
		switch {
		case taken:
			p.world.rec.Add(record.Entry{Kind: record.Acknowledged, ID: id, Attempts: attempts})
			if keyed && p.rng.IntN(20) == 0 { // somebody who did not hear the answer
				_, _, _ = p.attempt(ctx, calls, event)
			}
			return id
		case refused:
			p.world.rec.Add(record.Entry{Kind: record.Refused, ID: id, Attempts: attempts, Text: why})
			return id
		case !keyed || !wait(ctx, jitter(p.rng, retryEvery)):
			p.world.rec.Add(record.Entry{Kind: record.Unknown, ID: id, Attempts: attempts, Text: why})
			return id
		}
	}
}

// attempt sends an event to one of the api nodes.
func (p *publisher) attempt(ctx context.Context, calls client.API, event client.Event) (taken, refused bool, why string) {
	at, ok := p.world.apis[p.rng.IntN(len(p.world.apis))].Addresses()
	if !ok {
		return false, false, "the api node has no address"
	}
	calls.Base = "http://" + at.API
	answer, err := calls.Trigger(ctx, event)
	if err != nil {
		return false, false, err.Error()
	}
	why = fmt.Sprintf("%d %s", answer.Status, answer.Body)
	return answer.Status == http.StatusOK, answer.Status < http.StatusInternalServerError, why
}
