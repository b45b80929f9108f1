package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// ends are the ways in which a process goes.
var ends = []struct {
	name string
	end  func(*env.Node)
}{
	{"stopped", (*env.Node).Stop},
	{"killed", (*env.Node).Kill},
}

// onePartitions is the partition count of one process.
const onePartitions = 4

// What was acknowledged on channels that keep something is there when the
// process is started again on its files.
func TestDataSurvivesRestart(t *testing.T) {
	for _, way := range ends {
		t.Run(way.name, func(t *testing.T) {
			c := env.Start(t, env.Set("embedded.listen=127.0.0.1:0"))
			var want []string
			for i := range 20 {
				want = append(want, fmt.Sprint(i))
				say(t, c, "durable-a", "said", want[i])
			}
			say(t, c, "cache-a", "price", "41")
			say(t, c, "cache-a", "price", "42")
			way.end(c.API)
			c.API.Restart()
			if got := kept(t, c.API, "durable-a"); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("history is %v, want %v", got, want)
			}
			reader := subscribed(t, c.API, "durable-a", "cache-a")
			if f := reader.Expect("price"); f.Text() != "42" {
				t.Errorf("cached value is %s, want 42", f.Raw)
			}
			hears(t, c, "durable-a", "20", reader)
			if got := kept(t, c.API, "durable-a"); len(got) != 21 || got[20] != "20" {
				t.Errorf("history after one more is %v", got)
			}
		})
	}
}

// kept asks the routers of a node for the history of a channel.
func kept(t *testing.T, node *env.Node, name string) (data []string) {
	t.Helper()
	nc, err := nats.Connect(node.NATS())
	if err != nil {
		t.Fatalf("connect to %q: %v", node.NATS(), err)
	}
	defer nc.Close()
	request, err := json.Marshal(history.Request{App: env.AppID, Channel: name, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	partition := channel.Key{App: env.AppID, Name: name}.Partition(onePartitions)
	var reply history.Reply
	await.Success(t, "the history of "+name, func() error {
		answer, err := nc.Request(subject.History(partition), request, client.Patience)
		if err != nil {
			return err
		}
		reply = history.Reply{}
		if err := json.Unmarshal(answer.Data, &reply); err != nil {
			return err
		}
		if reply.Error != "" {
			return fmt.Errorf("refused: %s", reply.Error)
		}
		return nil
	})
	for _, e := range reply.Entries {
		p, err := message.Parse(e.Publication)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, string(p.Data))
	}
	return data
}

// Webhooks that an endpoint could not take yet are sent after a restart.
func TestWebhooksSurviveRestart(t *testing.T) {
	for _, way := range ends {
		t.Run(way.name, func(t *testing.T) {
			endpoint := loopback.Addr(t)
			c := env.Start(t, env.Webhook("http://"+endpoint+"/"),
				env.Set("api.webhook.backoff_min=50ms", "api.webhook.backoff_max=200ms", "api.webhook.ack_wait=1s"))
			dial(t, c.API).Subscribe("occupied-before")
			await.True(t, "an attempt has failed", func() bool {
				return metric(t, c.API, "carillon_api_webhook_attempts_total") > 0
			})
			way.end(c.API)
			c.API.Restart()
			events := listenForHooks(t, endpoint)
			dial(t, c.API).Subscribe("occupied-after")
			seen := map[string]bool{}
			for e := range events {
				if e.Name == "channel_occupied" {
					seen[e.Channel] = true
				}
				if seen["occupied-before"] && seen["occupied-after"] {
					return
				}
			}
			t.Errorf("told of %v, want occupied-before and occupied-after", seen)
		})
	}
}

type hookEvent struct {
	Name    string `json:"name"`
	Channel string `json:"channel"`
}

// listenForHooks is an application's endpoint at addr. The events end after
// client.Patience.
func listenForHooks(t *testing.T, addr string) <-chan hookEvent {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	taken, events := make(chan hookEvent), make(chan hookEvent)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Events []hookEvent `json:"events"`
		}
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(raw, &body)
		}
		if err != nil {
			t.Errorf("webhook %s: %v", raw, err)
		}
		for _, e := range body.Events {
			select {
			case taken <- e:
			case <-ctx.Done():
			}
		}
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	go func() {
		defer close(events)
		for {
			select {
			case e := <-taken:
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = srv.Close() // what is under way is of no interest
		<-served
	})
	return events
}
