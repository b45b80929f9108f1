package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

const (
	reconnectEvery = 200 * time.Millisecond
	// silence is how long a subscriber hears nothing before it connects again:
	// longer than NATS is away for.
	silence = 30 * time.Second
)

// session is one connection of an actor and what was recorded of it.
type session struct {
	world  *world
	number int
	actor  string
	conn   *client.Client
	places map[string]place // of an actor that keeps them; nil of others
	asked  map[string]place // where this session wants to go on

	over sync.Once // its end is recorded once
}

// connect makes a connection to one of the gateways; nil if that fails.
func (w *world) connect(actor string, rng *rand.Rand) *session {
	gate := w.gates[rng.IntN(len(w.gates))]
	at, ok := gate.Addresses()
	if !ok {
		return nil
	}
	conn, err := client.TryDial(w.t, at.Public, env.Key, client.WithSecret(env.Secret), client.WithPatience(silence))
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil
	}
	s := &session{world: w, number: int(w.sessions.Add(1)), actor: actor, conn: conn}
	w.rec.Add(record.Entry{Kind: record.Connected, Actor: actor, Session: s.number, Text: gate.Name + " as " + conn.SocketID})
	return s
}

// end closes the connection. The first call says why.
func (s *session) end(left bool, why string) {
	s.over.Do(func() {
		s.world.rec.Add(record.Entry{Kind: record.Closed, Actor: s.actor, Session: s.number, Left: left, Text: why})
	})
	s.conn.Close()
}

// subscribe asks for a channel, as user where it is a presence channel, and
// from where the actor is where it keeps its place.
func (s *session) subscribe(channel, user string) error {
	s.world.rec.Add(record.Entry{Kind: record.Asked, Session: s.number, Channel: channel, User: user})
	data := ""
	if user != "" {
		data = client.ChannelData(user)
	}
	if s.places == nil || !Channels().Durable(channel) {
		return s.conn.TrySubscribe(channel, data)
	}
	at := s.places[channel]
	s.asked[channel] = at
	if at.Epoch == "" {
		return s.conn.TryResume(channel, data, true)
	}
	return s.conn.TryResume(channel, data, at)
}

// place is how far an actor has come on a channel.
type place struct {
	Position string `json:"position"`
	Epoch    string `json:"epoch"`
}

// subscribed keeps what the server said about a place. Where it goes on from
// one, the events in between are still to come, and move it.
func (s *session) subscribed(f client.Frame, e *record.Entry) {
	var answer struct {
		Resume *struct {
			place
			Recovered bool `json:"recovered"`
		} `json:"resume"`
	}
	if s.places == nil || json.Unmarshal([]byte(f.Text()), &answer) != nil || answer.Resume == nil {
		return
	}
	if !answer.Resume.Recovered {
		s.places[f.Channel] = answer.Resume.place
		return
	}
	e.Resumed = true
	e.Position, _ = strconv.ParseUint(s.asked[f.Channel].Position, 10, 64) // as the server told it
}

// moved keeps the place behind an event.
func (s *session) moved(f client.Frame) {
	if at, ok := s.places[f.Channel]; ok && f.Position != "" {
		s.places[f.Channel] = place{f.Position, at.Epoch}
	}
}

var errRefused = errors.New("a subscription was refused for now")

// givenUp says whether it was the actor that ended a connection.
func givenUp(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, os.ErrDeadlineExceeded)
}

// read records what comes until the connection ends. users has the user of
// each presence channel.
func (s *session) read(users map[string]string) error {
	for {
		f, err := s.conn.Read()
		if err != nil {
			return err
		}
		e := record.Entry{Session: s.number, Channel: f.Channel}
		switch f.Event {
		case "pusher_internal:subscription_succeeded":
			e.Kind, e.User, e.Users = record.Subscribed, users[f.Channel], client.Members(f)
			s.subscribed(f, &e)
		case "pusher_internal:member_added":
			e.Kind, e.User = record.Added, client.Member(f)
		case "pusher_internal:member_removed":
			e.Kind, e.User = record.Removed, client.Member(f)
		case eventName:
			e.Kind, e.ID = record.Event, f.Text()
			s.moved(f)
		case "pusher:subscription_error":
			return fmt.Errorf("%w: %s", errRefused, f.Raw)
		case "pusher:error":
			if f.Code() == 0 { // it goes with a refusal, and ends nothing
				return fmt.Errorf("%w: %s", errRefused, f.Raw)
			}
			return fmt.Errorf("the server said: %s", f.Raw)
		default:
			continue // counts
		}
		s.world.rec.Add(e)
	}
}

// subscriber is on every channel, and connects again whenever it loses its
// connection.
type subscriber struct {
	world  *world
	name   string
	rng    *rand.Rand
	keeps  bool             // its place: it goes on there with its next connection
	places map[string]place // by channel
}

func (s *subscriber) run(ctx context.Context) {
	users := map[string]string{}
	for _, c := range s.world.presence {
		users[c] = s.name
	}
	for first := true; first || wait(ctx, jitter(s.rng, reconnectEvery)); first = false {
		session := s.world.connect(s.name, s.rng)
		if session == nil {
			continue
		}
		if s.keeps {
			session.places, session.asked = s.places, map[string]place{}
		}
		stop := context.AfterFunc(ctx, func() { session.end(true, "the run is over") })
		err := s.follow(session, users)
		stop()
		session.end(givenUp(err), err.Error())
		if ctx.Err() != nil {
			return
		}
	}
}

// follow subscribes to everything and reads.
func (s *subscriber) follow(session *session, users map[string]string) error {
	for _, channels := range [][]string{durableChannels, liveChannels, s.world.presence} {
		for _, c := range channels {
			if err := session.subscribe(c, users[c]); err != nil {
				return err
			}
		}
	}
	return session.read(users)
}

// guest comes to a presence channel for a while, again and again; other
// guests may come as the same user.
type guest struct {
	world *world
	name  string
	user  string
	rng   *rand.Rand
}

const (
	stay = 2 * time.Second
	away = time.Second
)

// run comes and goes until busy ends; every other visit that is going on then
// lasts until present ends.
func (g *guest) run(busy, present context.Context) {
	defer g.world.rec.Add(record.Entry{Kind: record.Gone, Actor: g.name})
	for wait(busy, jitter(g.rng, away)) {
		channel, staysOn := g.world.presence[g.rng.IntN(len(g.world.presence))], g.rng.IntN(2) == 0
		s := g.world.connect(g.name, g.rng)
		if s == nil {
			continue
		}
		enough := time.AfterFunc(jitter(g.rng, stay), func() {
			if busy.Err() == nil || !staysOn {
				s.end(true, "has seen enough")
			}
		})
		stop := context.AfterFunc(present, func() { s.end(true, "the run is over") })
		err := s.subscribe(channel, g.user)
		if err == nil {
			err = s.read(map[string]string{channel: g.user})
		}
		enough.Stop()
		stop()
		s.end(givenUp(err), err.Error())
	}
}
