package roadrunner

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/centrifugal/centrifuge-go"

	"github.com/carillon-rt/carillon/kit/await"
)

// client is Centrifugo's Go client, which speaks protobuf, with a list of what
// it was told.
type client struct {
	*centrifuge.Client

	t  *testing.T
	ID string

	mu sync.Mutex
	// guarded by mu
	told []string
}

// connect returns when the client is connected. Its session reaches the worker
// in the data of connect, its cookie in the header.
func connect(t *testing.T, gateway, session string) *client {
	t.Helper()
	c := &client{t: t, Client: centrifuge.NewProtobufClient("ws://"+gateway+"/connection/websocket?app="+app, centrifuge.Config{
		Data: fmt.Appendf(nil, `{"session":%q}`, session), Name: "shop", Version: "1.2",
		Header: http.Header{"Cookie": {"sid=" + session}},
	})}
	t.Cleanup(c.Close)
	c.OnConnected(func(e centrifuge.ConnectedEvent) {
		c.mu.Lock()
		c.ID = e.ClientID
		c.mu.Unlock()
		c.tell("connected %s", e.Data)
	})
	c.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code != 0 {
			c.tell("connecting %d %s", e.Code, e.Reason)
		}
	})
	c.OnDisconnected(func(e centrifuge.DisconnectedEvent) { c.tell("disconnected %d %s", e.Code, e.Reason) })
	c.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) { c.tell("%s: subscribed %s", e.Channel, e.Data) })
	c.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) { c.tell("%s: unsubscribed", e.Channel) })
	c.OnPublication(func(e centrifuge.ServerPublicationEvent) { c.tell("%s: %s", e.Channel, e.Data) })
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return c
}

// subscribe has the client subscribe to a channel with this data.
func (c *client) subscribe(channel, data string) *centrifuge.Subscription {
	c.t.Helper()
	s, err := c.NewSubscription(channel, centrifuge.SubscriptionConfig{Data: []byte(data)})
	if err != nil {
		c.t.Fatal(err)
	}
	s.OnSubscribed(func(e centrifuge.SubscribedEvent) { c.tell("%s: subscribed %s", channel, e.Data) })
	s.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { c.tell("%s: unsubscribed %d %s", channel, e.Code, e.Reason) })
	s.OnPublication(func(e centrifuge.PublicationEvent) {
		if e.Info == nil {
			c.tell("%s: %s", channel, e.Data)
			return
		}
		c.tell("%s: %s from %s %s %s", channel, e.Data, e.Info.User, e.Info.ConnInfo, e.Info.ChanInfo)
	})
	if err := s.Subscribe(); err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *client) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf(format, args...))
}

// expect waits for the next thing that the client is told.
func (c *client) expect(want string) {
	c.t.Helper()
	var got string
	await.Within(c.t, patience, "the client is told: "+want, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.told) == 0 {
			return false
		}
		got, c.told = c.told[0], c.told[1:]
		return true
	})
	if got != want {
		c.t.Fatalf("the client was told %q, want %q", got, want)
	}
}

// id is the client's id, once it is connected.
func (c *client) id() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ID
}
