package operations

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// centrifugo is a client of Centrifugo's protocol.
type centrifugo struct {
	t    *testing.T
	conn net.Conn
	id   string // client id
	rest [][]byte
}

// dialCentrifugo connects anonymously.
func dialCentrifugo(t *testing.T, gateway *env.Node) *centrifugo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, "ws://"+gateway.Public()+"/connection/websocket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &centrifugo{t: t, conn: conn}
	c.send(`{"id":1,"connect":{"name":"tests"}}`)
	var reply struct{ Connect struct{ Client string } }
	if err := json.Unmarshal([]byte(c.expect(`"id":1`, "connect")), &reply); err != nil || reply.Connect.Client == "" {
		t.Fatalf("connect: %+v, %v", reply, err)
	}
	c.id = reply.Connect.Client
	return c
}

func (c *centrifugo) send(command string) {
	c.t.Helper()
	if err := wsutil.WriteClientText(c.conn, []byte(command)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads until a message that holds all parts.
func (c *centrifugo) expect(parts ...string) string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(client.Patience)); err != nil {
		c.t.Fatal(err)
	}
	for {
		for len(c.rest) > 0 {
			line := string(c.rest[0])
			c.rest = c.rest[1:]
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return line
			}
		}
		frame, err := wsutil.ReadServerText(c.conn)
		if err != nil {
			c.t.Fatalf("waiting for %q: %v", parts, err)
		}
		c.rest = bytes.Split(frame, []byte("\n"))
	}
}

// TestServerAPIOfCentrifugoClients: what backends order is done to clients of
// Centrifugo's protocol, wherever they are.
func TestServerAPIOfCentrifugoClients(t *testing.T) {
	c := env.Start(t, env.Apart(2))
	one, two := dialCentrifugo(t, c.Gateways[0]), dialCentrifugo(t, c.Gateways[1])
	for _, cl := range []*centrifugo{one, two} {
		cl.send(`{"id":2,"subscribe":{"channel":"room:1"}}`)
		cl.expect(`"id":2`, "subscribe")
	}
	var at struct{ Offset uint64 }
	serverAPI(t, c, "publish", `{"channel":"room:1","data":{"n":1},"tags":{"k":"v"}}`, &at)
	one.expect("push", `"room:1"`, `{"n":1}`, fmt.Sprintf(`"offset":%d`, at.Offset), `"k":"v"`)
	serverAPI(t, c, "publish", `{"channel":"room:1","data":{"n":2},"skip_history":true}`, nil)
	if push := two.expect("push", `{"n":2}`); strings.Contains(push, "offset") {
		t.Errorf("what is not kept has an offset: %s", push)
	}
	var who struct {
		Presence map[string]struct{ Client string }
	}
	eventually(t, "both are present", func() bool {
		return serverAPI(t, c, "presence", `{"channel":"room:1"}`, &who) == 0 && len(who.Presence) == 2
	})
	if who.Presence[one.id].Client != one.id || who.Presence[two.id].Client != two.id {
		t.Errorf("presence is %+v, want %s and %s", who, one.id, two.id)
	}
	serverAPI(t, c, "subscribe", fmt.Sprintf(`{"client":%q,"channel":"extra","data":{"hello":1}}`, one.id), nil)
	one.expect("push", "subscribe", `"extra"`, `{"hello":1}`)
	serverAPI(t, c, "publish", `{"channel":"extra","data":"for one"}`, nil)
	one.expect("push", `"extra"`, "for one")
	serverAPI(t, c, "unsubscribe", fmt.Sprintf(`{"client":%q,"channel":"extra"}`, one.id), nil)
	one.expect("push", "unsubscribe", `"extra"`)
	var connections struct {
		Connections map[string]struct{ Protocol string }
	}
	serverAPI(t, c, "connections", `{}`, &connections)
	if len(connections.Connections) != 2 || connections.Connections[two.id].Protocol != "centrifugo" {
		t.Errorf("connections are %+v", connections)
	}
	serverAPI(t, c, "disconnect", fmt.Sprintf(`{"all_users":true,"whitelist":[%q],"disconnect":{"code":4500,"reason":"go away"}}`, one.id), nil)
	for {
		_, err := wsutil.ReadServerText(two.conn)
		if closed, ok := err.(wsutil.ClosedError); ok {
			if closed.Code != 4500 || closed.Reason != "go away" {
				t.Errorf("closed with %d %q", closed.Code, closed.Reason)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	one.send(`{"id":9,"history":{"channel":"room:1","limit":5}}`) // it is still there
	one.expect(`"id":9`)
	if got := pastOf(t, c, `{"channel":"room:1","limit":5}`); got.String() != `{"n":1}` {
		t.Errorf("history is %s", got)
	}
}
