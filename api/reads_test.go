package api_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestReads(t *testing.T) {
	f := start(t).presence().history()
	f.occupy(
		presence.ChannelInfo{Name: "a", Subscriptions: 2},
		presence.ChannelInfo{Name: "presence-x", Subscriptions: 5, Users: 2, Members: []presence.MemberInfo{
			{ID: "1", RawID: "1", Info: `{"n":"<b>"}`}, {ID: "zwei\"", RawID: `"zwei\""`},
		}},
		presence.ChannelInfo{Name: "presence-y", Subscriptions: 1, Users: 1},
		presence.ChannelInfo{Name: "#server-to-user-7", Subscriptions: 1},
		presence.ChannelInfo{Name: "#online-7", Subscriptions: 1},
		presence.ChannelInfo{Name: "cache-a", Subscriptions: 1},
	)
	f.mu.Lock()
	f.cached["cache-a"], f.cached["durable-a"] = `{"some": "<value>"}`, "never read"
	f.mu.Unlock()
	for _, tc := range []struct{ name, path, query, want string }{
		{"all channels", "/channels", "", `{"channels":{"a":{},"cache-a":{},"presence-x":{},"presence-y":{}}}`},
		{"with subscriptions", "/channels", "info=subscription_count&filter_by_prefix=a", `{"channels":{"a":{"subscription_count":2}}}`},
		{"with users", "/channels", "info=user_count&filter_by_prefix=presence-", `{"channels":{"presence-x":{"user_count":2},"presence-y":{"user_count":1}}}`},
		{"none", "/channels", "filter_by_prefix=nothing", `{"channels":{}}`},
		{"channels of users", "/channels", "filter_by_prefix=#server-to-user-", `{"channels":{"#server-to-user-7":{}}}`},
		{"internal channels", "/channels", "filter_by_prefix=#online-", `{"channels":{}}`},
		{"a channel", "/channels/a", "", `{"occupied":true}`},
		{"an empty channel", "/channels/b", "", `{"occupied":false}`},
		{"its subscriptions", "/channels/b", "info=subscription_count", `{"occupied":false,"subscription_count":0}`},
		{"its users", "/channels/presence-x", "info=user_count,subscription_count", `{"occupied":true,"user_count":2,"subscription_count":5}`},
		{"its value", "/channels/cache-a", "info=cache,subscription_count", `{"occupied":true,"subscription_count":1,"cache":{"data":"{\"some\": \"<value>\"}","ttl":17}}`},
		{"no value", "/channels/private-cache-b", "info=cache", `{"occupied":false,"cache":null}`},
		{"keeps none", "/channels/durable-a", "info=cache", `{"occupied":false,"cache":null}`},
		{"users", "/channels/presence-x/users", "", `{"users":[{"id":"1"},{"id":"zwei\""}]}`},
		{"users with info", "/channels/presence-x/users", "with_user_info=1", `{"users":[{"id":"1","user_info":{"n":"<b>"}},{"id":"zwei\""}]}`},
		{"no users", "/channels/presence-z/users", "", `{"users":[]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.do(get("/apps/3"+tc.path, tc.query))
			if got.status != 200 || got.body != tc.want {
				t.Errorf("answer %d %s, want %s", got.status, got.body, tc.want)
			}
			if !json.Valid([]byte(got.body)) {
				t.Errorf("not JSON: %s", got.body)
			}
		})
	}
	t.Run("always counted", func(t *testing.T) {
		for path, want := range map[string]string{
			"/apps/5/channels/a": `{"occupied":true,"subscription_count":2}`,
			"/apps/5/channels?":  `{"channels":{"a":{"subscription_count":2}}}`,
		} {
			r := request{method: "GET", path: path, key: "key-of-5", secret: "secret-of-5"}
			if rest, ok := strings.CutSuffix(path, "?"); ok {
				r.path, r.query = rest, "filter_by_prefix=a"
			}
			if got := f.do(r); got.body != want {
				t.Errorf("%s: %s, want %s", path, got.body, want)
			}
		}
	})
	t.Run("every shard", func(t *testing.T) {
		f.mu.Lock()
		clear(f.asked)
		f.mu.Unlock()
		f.do(get("/apps/3/channels", ""))
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.asked) != subject.PresenceShards {
			t.Errorf("%d shards were asked, want %d", len(f.asked), subject.PresenceShards)
		}
	})
}

func TestReadRefusals(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.QueryTimeout = 2 * timeoutShort })
	for _, tc := range []struct {
		name, path, query string
		status            int
		text              string
	}{
		{"users without a presence filter", "/channels", "info=user_count", 400, "filter_by_prefix"},
		{"users with another filter", "/channels", "info=user_count&filter_by_prefix=private-", 400, "filter_by_prefix"},
		{"users of another kind", "/channels/a", "info=user_count", 400, "presence channels"},
		{"list of users of another kind", "/channels/private-a/users", "", 400, "presence channels"},
		{"bad name", "/channels/a%20b", "", 400, "allowed are"},
		{"no name", "/channels/", "", 400, "empty"},
		{"no owner of the channel", "/channels/a", "", 503, "try again"},
		{"no owner of a shard", "/channels", "", 503, "try again"},
		{"no owner of the users", "/channels/presence-a/users", "", 503, "try again"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkError(t, f.do(get("/apps/3"+tc.path, tc.query)), tc.status, tc.text)
		})
	}
	f.presence()
	t.Run("no router", func(t *testing.T) {
		checkError(t, f.do(get("/apps/3/channels/cache-a", "info=cache")), 503, "try again")
	})
}

func TestIncompleteReads(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.ListMax = 150 }).presence()
	f.mu.Lock()
	f.partial = true
	f.mu.Unlock()
	for _, path := range []string{"/apps/3/channels", "/apps/3/channels/a", "/apps/3/channels/presence-a/users"} {
		if got := f.do(get(path, "")); got.status != 200 || got.header.Get("X-Carillon-Incomplete") != "true" {
			t.Errorf("%s: %d, X-Carillon-Incomplete %q", path, got.status, got.header.Get("X-Carillon-Incomplete"))
		}
	}
	f.mu.Lock()
	f.partial = false
	f.mu.Unlock()
	for _, n := range []int{150, 151, 1000} {
		var infos []presence.ChannelInfo
		for i := range n {
			infos = append(infos, presence.ChannelInfo{Name: "c" + strconv.Itoa(i), Subscriptions: 1})
		}
		f.occupy(infos...)
		got := f.do(get("/apps/3/channels", ""))
		var body struct{ Channels map[string]struct{} }
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		if cut := got.header.Get("X-Carillon-Incomplete") == "true"; len(body.Channels) != min(n, 150) || cut != (n > 150) {
			t.Errorf("%d channels: listed %d, incomplete %v", n, len(body.Channels), cut)
		}
	}
}

func TestTerminate(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.PublishTimeout = timeoutShort })
	sub, err := f.deps.NATS.Live.SubscribeSync(subject.GatewayControl)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.deps.NATS.Live.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		req  request
		user string
	}{
		{"with a body", post("/apps/3/users/7/terminate_connections", "{}"), "7"},
		{"without", post("/apps/3/users/7/terminate_connections", ""), "7"},
		{"escaped user", post("/apps/3/users/a%2Fb%20c/terminate_connections", "{}"), "a/b c"},
		{"Python's path", post("/users/8/terminate_connections", "{}"), "8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := f.do(tc.req); got.status != 200 || got.body != "{}" {
				t.Fatalf("answer %d %s", got.status, got.body)
			}
			checkCommand(t, sub, control.Command{App: "3", TerminateUser: tc.user})
		})
	}
	checkError(t, f.do(post("/apps/3/users/7/terminate_connections", "[1]")), 400, "must be {} or empty")
	checkError(t, f.do(post("/apps/3/users//terminate_connections", "{}")), 400, "user id")
	checkError(t, f.do(post("/apps/3/users/"+strings.Repeat("u", 129)+"/terminate_connections", "{}")), 400, "user id")
	r := post("/users/8/terminate_connections", "{}")
	r.key, r.secret = "nobody", "x"
	checkError(t, f.do(r), 401, "unknown")
	f.nats.Stop()
	checkError(t, f.do(post("/apps/3/users/7/terminate_connections", "{}")), 503, "try again")
}

func checkCommand(t *testing.T, sub *nats.Subscription, want control.Command) {
	t.Helper()
	msg, err := sub.NextMsg(5e9)
	if err != nil {
		t.Fatal(err)
	}
	var got control.Command
	if err := json.Unmarshal(msg.Data, &got); err != nil || got != want {
		t.Errorf("command %s (%v), want %+v", msg.Data, err, want)
	}
}

// The vector of the protocol's documentation.
func TestGoldenSignature(t *testing.T) {
	const body = `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`
	wire := request{method: "POST", path: "/apps/3/events", body: body, time: 1353088179}.wire()
	for _, want := range []string{
		"auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c", "body_md5=ec365a775a4cd0599faeb73354201b6f",
	} {
		if !strings.Contains(wire, want) {
			t.Errorf("the tests' own signer does not make %s", want)
		}
	}
	if signature.BodyMD5(nil) != "d41d8cd98f00b204e9800998ecf8427e" {
		t.Error("digest of the empty body")
	}
}
