package operations

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// place is what a client knows of where it is, as it sends it again.
type place struct {
	Position string `json:"position,omitempty"`
	Epoch    string `json:"epoch,omitempty"`
	Socket   string `json:"socket_id,omitempty"`
	Rewind   int    `json:"rewind,omitempty"`
}

// resumed is the answer.
type resumed struct {
	Recovered       bool
	Position, Epoch string
	Error           string
}

// resume subscribes with a wish, of whatever form, and gives the answer.
func resume(t *testing.T, c *client.Client, channel string, wish any) resumed {
	t.Helper()
	r, err := tryResume(c, channel, wish)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryResume(c *client.Client, channel string, wish any) (resumed, error) {
	err := c.Write("pusher:subscribe", "", map[string]any{
		"channel": channel, "resume": wish,
		"auth": signature.Auth(env.Key, env.Secret, signature.Channel(c.SocketID, channel, "")),
	})
	if err != nil {
		return resumed{}, err
	}
	for {
		f, err := c.Read()
		if err != nil {
			return resumed{}, err
		}
		switch f.Event {
		case "pusher_internal:subscription_succeeded":
			var data struct{ Resume resumed }
			err := json.Unmarshal([]byte(f.Text()), &data)
			return data.Resume, err
		case "pusher_internal:subscription_count":
		default:
			return resumed{}, fmt.Errorf("subscribe to %s: got %s", channel, f.Raw)
		}
	}
}

// keeper is a client that keeps its place in one channel.
type keeper struct {
	*client.Client
	place
	seen []string
}

// come connects the keeper to a gateway and subscribes with its place.
func (k *keeper) come(t *testing.T, gateway *env.Node, channel string) (resumed, error) {
	c, err := client.TryDial(t, gateway.Public(), env.Key, client.WithSecret(env.Secret))
	if err != nil {
		return resumed{}, err
	}
	k.Client = c
	r, err := tryResume(c, channel, k.place)
	if err == nil {
		k.Position, k.Epoch, k.Socket = r.Position, r.Epoch, c.SocketID
		if k.Position == "" {
			err = fmt.Errorf("no place in %+v", r)
		}
	}
	return r, err
}

// listen reads events until their number is enough or the connection ends.
func (k *keeper) listen(enough int) error {
	for len(k.seen) < enough {
		f, err := k.Read()
		if err != nil {
			return err
		}
		if f.Event != "n" {
			continue
		}
		var extra struct{ Position string }
		if err := json.Unmarshal(f.Raw, &extra); err != nil || extra.Position == "" {
			return fmt.Errorf("no position in %s", f.Raw)
		}
		k.Position = extra.Position
		k.seen = append(k.seen, f.Text())
	}
	return nil
}

// Clients lose their gateway, by kill -9 or because it drains, while somebody
// publishes. On the other gateway each gets what it missed, and goes on, as if
// nothing had happened; the routers are hardly asked.
func TestResumeOnTheOtherGateway(t *testing.T) {
	for _, way := range ends {
		t.Run(way.name, func(t *testing.T) { resumeElsewhere(t, way.end) })
	}
}

func resumeElsewhere(t *testing.T, end func(*env.Node)) {
	const crowd, around = 500, 40
	c := env.Start(t, env.Apart(2), env.Routers(2))
	keepers := make([]*keeper, crowd)
	for i := range keepers {
		keepers[i] = &keeper{}
		if r, err := keepers[i].come(t, c.Gateways[0], "long-crowd"); err != nil || r.Recovered {
			t.Fatalf("first time: %+v, %v", r, err)
		}
	}
	load := startLoad(t, t.Context(), c, "long-crowd")
	load.more(t, around)
	var listening sync.WaitGroup
	for _, k := range keepers {
		listening.Go(func() { _ = k.listen(1 << 30) }) // until the gateway is gone
	}
	load.more(t, around)
	const questions, reads = "carillon_gateway_history_questions_total", "carillon_gateway_history_reads_total"
	eventually(t, "the other gateway has heard of the epoch", func() bool {
		resume(t, dial(t, c.Gateways[1]), "long-crowd", place{Rewind: 1})
		return metric(t, c.Gateways[1], questions, `reason="memory"`) > 0
	})
	readBefore := metric(t, c.Gateways[1], reads)
	end(c.Gateways[0])
	listening.Wait()
	var resuming sync.WaitGroup
	for i, k := range keepers {
		resuming.Go(func() {
			if r, err := k.come(t, c.Gateways[1], "long-crowd"); err != nil || !r.Recovered {
				t.Errorf("client %d: %+v, %v", i, r, err)
			}
		})
	}
	resuming.Wait()
	if t.Failed() {
		return
	}
	total := load.end()
	for i, k := range keepers {
		listening.Go(func() {
			if err := k.listen(total); err != nil {
				t.Errorf("client %d after %d of %d: %v", i, len(k.seen), total, err)
			}
		})
	}
	listening.Wait()
	for i, k := range keepers {
		if i == 0 {
			checkComplete(t, k.seen, total)
		} else if !slices.Equal(k.seen, keepers[0].seen) {
			t.Errorf("client %d did not see what client 0 did: %d and %d events", i, len(k.seen), len(keepers[0].seen))
		}
	}
	read, memory := metric(t, c.Gateways[1], reads)-readBefore, metric(t, c.Gateways[1], questions, `reason="memory"`)
	t.Logf("%d publications; %d clients came back: %v questions answered from memory, %v reads", total, crowd, memory, read)
	if read > 5 { // for clients that were ahead of this gateway
		t.Errorf("%v history reads for %d clients", read, crowd)
	}
	if got := metric(t, c.Gateways[1], "carillon_gateway_resumes_total", `reason="recovered"`); got != crowd {
		t.Errorf("%v are counted as recovered, want %d", got, crowd)
	}
}

// A gateway that has just started remembers nothing: the routers do, and are
// asked once for a crowd.
func TestResumeOnANewGateway(t *testing.T) {
	const crowd, missed = 200, 50
	c := env.Start(t, env.Apart(1), env.Routers(2))
	first := &keeper{}
	if _, err := first.come(t, c.Gateways[0], "durable-new"); err != nil {
		t.Fatal(err)
	}
	c.Gateways[0].Kill()
	var want []string
	for i := range missed {
		want = append(want, fmt.Sprintf("p/%06d", i))
		say(t, c, "durable-new", "n", want[i])
	}
	c.Gateways[0].Restart()
	var all sync.WaitGroup
	for i := range crowd {
		k := &keeper{place: first.place}
		all.Go(func() {
			if r, err := k.come(t, c.Gateways[0], "durable-new"); err != nil || !r.Recovered {
				t.Errorf("client %d: %+v, %v", i, r, err)
				return
			}
			if err := k.listen(missed); err != nil || !slices.Equal(k.seen, want) {
				t.Errorf("client %d got %v (%v), want %v", i, k.seen, err, want)
			}
		})
	}
	all.Wait()
	if reads := metric(t, c.Gateways[0], "carillon_gateway_history_reads_total"); reads > 3 {
		t.Errorf("%v history reads for %d clients", reads, crowd)
	}
}

// What can't be had again is told: recovered is never a lie.
func TestResumeThatCanNotBe(t *testing.T) {
	c := env.Start(t)
	gateway := c.Gateways[0]
	const kept = 100 // history.size of the policy
	start := resume(t, dial(t, gateway), "durable-trimmed", place{})
	for i := range kept + 1 {
		say(t, c, "durable-trimmed", "n", fmt.Sprint(i))
	}
	now := resume(t, dial(t, gateway), "durable-trimmed", place{Position: start.Position, Epoch: start.Epoch})
	if now.Recovered {
		t.Errorf("recovered over more than is kept: %+v since %+v", now, start)
	}
	for name, wish := range map[string]place{
		"another epoch":       {Position: now.Position, Epoch: "e" + now.Epoch},
		"the future":          {Position: fmt.Sprint(1<<53 - 1), Epoch: now.Epoch},
		"before everything":   {Position: "0", Epoch: now.Epoch},
		"nothing, but rewind": {Rewind: 3},
	} {
		reader := dial(t, gateway)
		if r := resume(t, reader, "durable-trimmed", wish); r.Recovered || r.Position != now.Position || r.Epoch != now.Epoch {
			t.Errorf("%s: %+v, want to be told that it is at %+v", name, r, now)
		}
		for i := range wish.Rewind {
			if f := reader.Expect("n"); f.Text() != fmt.Sprint(kept+1-wish.Rewind+i) {
				t.Errorf("%s: event %d is %s", name, i, f.Raw)
			}
		}
		reader.Subscribe("public-end") // and nothing of the past came before
	}
	plain := dial(t, gateway)
	if r := resume(t, plain, "news", place{Position: "5", Epoch: now.Epoch}); r.Recovered || r.Position != "" || r.Error == "" {
		t.Errorf("of a channel without history: %+v", r)
	}
	say(t, c, "news", "said", "x")
	if f := plain.Expect("said"); string(f.Raw) != `{"event":"said","channel":"news","data":"x"}` {
		t.Errorf("got %s", f.Raw)
	}
	stock := subscribed(t, gateway, "durable-trimmed")
	say(t, c, "durable-trimmed", "said", "x")
	if f := stock.Expect("said"); string(f.Raw) != `{"event":"said","channel":"durable-trimmed","data":"x"}` {
		t.Errorf("a client that does not keep its place got %s", f.Raw)
	}
}

// A client that is excluded from an event is so too when it comes back.
func TestResumeLeavesOutOwnEvents(t *testing.T) {
	c := env.Start(t)
	k := &keeper{}
	if _, err := k.come(t, c.Gateways[0], "durable-own"); err != nil {
		t.Fatal(err)
	}
	calls := api(t, c)
	calls.MustPublish(t, client.Event{Name: "n", Data: "own", Channels: []string{"durable-own"}, SocketID: k.SocketID})
	k.Close()
	calls.MustPublish(t, client.Event{Name: "n", Data: "other", Channels: []string{"durable-own"}})
	if r, err := k.come(t, c.Gateways[0], "durable-own"); err != nil || !r.Recovered {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := k.listen(1); err != nil || k.seen[0] != "other" {
		t.Errorf("got %v, %v", k.seen, err)
	}
}

// The journal begins anew: who was there is told to come back, and then that
// its place is lost.
func TestResumeInANewEpoch(t *testing.T) {
	c := env.Start(t, env.Apart(1))
	k := &keeper{}
	if _, err := k.come(t, c.Gateways[0], "durable-epoch"); err != nil {
		t.Fatal(err)
	}
	say(t, c, "durable-epoch", "n", "before")
	if err := k.listen(1); err != nil {
		t.Fatal(err)
	}
	before := k.place
	deleteJournal(t, c)
	if code := k.ExpectClose(); code != 4200 {
		t.Fatalf("closed with %d, want 4200", code)
	}
	attempts := 0
	eventually(t, "it is there again in a new epoch", func() bool { // it may be sent away more than once
		old := k.place
		r, err := k.come(t, c.Gateways[0], "durable-epoch")
		if err != nil {
			return false
		}
		if r.Recovered && r.Epoch != old.Epoch || r.Epoch == before.Epoch {
			t.Fatalf("told %+v, after %+v", r, old)
		}
		attempts++
		say(t, c, "durable-epoch", "n", fmt.Sprint("after ", attempts))
		return k.listen(len(k.seen)+1) == nil
	})
	for i, data := range k.seen[1:] {
		if data == "before" || slices.Contains(k.seen[:i+1], data) {
			t.Errorf("heard %v", k.seen)
		}
	}
}

func deleteJournal(t *testing.T, c *env.Cluster) {
	t.Helper()
	nc, err := nats.Connect(c.NATS.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		err = js.DeleteStream(t.Context(), subject.JournalStream)
	}
	if err != nil {
		t.Fatal(err)
	}
}
