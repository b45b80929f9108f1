package operations

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"

	"github.com/carillon-rt/carillon/proto/centrifugo/apipb"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// serverAPI calls a method of the Centrifugo server API, decodes its result
// into out, unless that is nil, and gives the code of its error.
func serverAPI(t *testing.T, c *env.Cluster, method, params string, out any) (code int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.API.API()+"/api/"+method, bytes.NewBufferString(params))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("X-API-Key", env.APIKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Result json.RawMessage
		Error  struct{ Code int }
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d, %v", method, params, res.StatusCode, err)
	}
	if out != nil && answer.Error.Code == 0 {
		if err := json.Unmarshal(answer.Result, out); err != nil {
			t.Fatalf("%s %s: %s: %v", method, params, answer.Result, err)
		}
	}
	return answer.Error.Code
}

// past is the answer to history.
type past struct {
	Publications []struct {
		Data   json.RawMessage
		Offset uint64
	}
	Epoch  string
	Offset uint64
}

func (p past) String() string {
	var data []string
	for _, pub := range p.Publications {
		data = append(data, string(pub.Data))
	}
	return strings.Join(data, " ")
}

func pastOf(t *testing.T, c *env.Cluster, params string) (p past) {
	t.Helper()
	if code := serverAPI(t, c, "history", params, &p); code != 0 {
		t.Fatalf("history %s: error %d", params, code)
	}
	return p
}

// TestServerAPI uses the Centrifugo server API as a backend does, beside
// clients of Pusher's protocol.
func TestServerAPI(t *testing.T) {
	for name, how := range map[string]env.Option{"one process": env.Set(), "services apart": env.Apart(2)} {
		t.Run(name, func(t *testing.T) {
			c := env.Start(t, how,
				env.Set("api.centrifugo_grpc.listen=127.0.0.1:0", "api.centrifugo_grpc.keyless_app="+env.AppID))
			var readers []*client.Client
			for _, gateway := range c.Gateways {
				readers = append(readers, subscribed(t, gateway, "durable-a", "plain"))
			}
			publishing(t, c, readers)
			reading(t, c, len(readers))
			overGRPC(t, c, readers)
		})
	}
}

func publishing(t *testing.T, c *env.Cluster, readers []*client.Client) {
	t.Helper()
	var at [3]struct {
		Offset uint64
		Epoch  string
	}
	for i := range at {
		serverAPI(t, c, "publish", fmt.Sprintf(`{"channel":"durable-a","data":{"n":%d},"idempotency_key":"k%d"}`, i, i), &at[i])
		if at[i].Offset == 0 || at[i].Epoch != at[0].Epoch || i > 0 && at[i].Offset <= at[i-1].Offset {
			t.Errorf("publication %d is at %+v, after %+v", i, at[i], at[max(i-1, 0)])
		}
	}
	again := at[0]
	serverAPI(t, c, "publish", `{"channel":"durable-a","data":{"n":0},"idempotency_key":"k0"}`, &again)
	if again != at[0] {
		t.Errorf("the first again is at %+v, want %+v", again, at[0])
	}
	if code := serverAPI(t, c, "publish", `{"channel":"durable-a","data":{"n":7},"idempotency_key":"k0"}`, nil); code != 113 {
		t.Errorf("another one with its key: error %d, want a conflict", code)
	}
	serverAPI(t, c, "broadcast", `{"channels":["plain","durable-a"],"data":"passing","skip_history":true}`, nil)
	for _, reader := range readers {
		for i := range at {
			if f := reader.Expect("message"); f.Channel != "durable-a" || f.Text() != fmt.Sprintf(`{"n":%d}`, i) {
				t.Errorf("a client got %s, want publication %d", f.Raw, i)
			}
		}
		got := map[string]bool{}
		for range 2 {
			if f := reader.Expect("message"); f.Text() == `"passing"` {
				got[f.Channel] = true
			}
		}
		if !got["plain"] || !got["durable-a"] {
			t.Errorf("a client got the broadcast on %v", got)
		}
	}
	all := pastOf(t, c, `{"channel":"durable-a","limit":-1}`)
	if all.String() != `{"n":0} {"n":1} {"n":2}` || all.Offset != at[2].Offset || all.Epoch != at[0].Epoch {
		t.Errorf("history is %s up to %d, want what is kept up to %d", all, all.Offset, at[2].Offset)
	}
	for params, want := range map[string]string{
		fmt.Sprintf(`{"channel":"durable-a","limit":9,"since":{"offset":%d,"epoch":%q}}`, at[0].Offset, at[0].Epoch): `{"n":1} {"n":2}`,
		fmt.Sprintf(`{"channel":"durable-a","limit":9,"reverse":true,"since":{"offset":%d}}`, at[2].Offset):          `{"n":1} {"n":0}`,
		`{"channel":"durable-a","limit":1}`:                `{"n":0}`,
		`{"channel":"durable-a","limit":1,"reverse":true}`: `{"n":2}`,
		`{"channel":"durable-a"}`:                          ``,
	} {
		if got := pastOf(t, c, params); got.String() != want {
			t.Errorf("history %s is %s, want %s", params, got, want)
		}
	}
	if code := serverAPI(t, c, "history", `{"channel":"durable-a","limit":1,"since":{"offset":1,"epoch":"other"}}`, nil); code != 112 {
		t.Errorf("history of another epoch: error %d", code)
	}
	serverAPI(t, c, "history_remove", `{"channel":"durable-a"}`, nil)
	if got := pastOf(t, c, `{"channel":"durable-a","limit":-1}`); got.String() != "" || got.Offset != at[2].Offset {
		t.Errorf("after the removal history is %s up to %d", got, got.Offset)
	}
	serverAPI(t, c, "publish", `{"channel":"durable-a","data":"new"}`, nil)
	if got := pastOf(t, c, `{"channel":"durable-a","limit":-1}`); got.String() != `"new"` {
		t.Errorf("after one more history is %s", got)
	}
	for _, reader := range readers {
		if f := reader.Expect("message"); f.Text() != `"new"` {
			t.Errorf("a client got %s after the removal", f.Raw)
		}
	}
}

func reading(t *testing.T, c *env.Cluster, clients int) {
	t.Helper()
	member := dial(t, c.Gateways[0])
	member.Join("presence-a", "7")
	var who struct {
		Presence map[string]struct{ User string }
	}
	eventually(t, "the member is known", func() bool {
		return serverAPI(t, c, "presence", `{"channel":"presence-a"}`, &who) == 0 && len(who.Presence) == 1
	})
	if who.Presence["7"].User != "7" {
		t.Errorf("presence is %+v", who)
	}
	var channels struct {
		Channels map[string]struct {
			NumClients int `json:"num_clients"`
		}
	}
	eventually(t, "the channels are known", func() bool {
		return serverAPI(t, c, "channels", `{}`, &channels) == 0 && len(channels.Channels) == 3 && channels.Channels["plain"].NumClients == clients
	})
	var connections struct {
		Connections map[string]struct {
			Transport string
			State     struct{ Channels map[string]struct{} }
		}
	}
	serverAPI(t, c, "connections", `{}`, &connections)
	if of, ok := connections.Connections[member.SocketID]; !ok || len(connections.Connections) != clients+1 || of.Transport != "websocket" || len(of.State.Channels) != 1 {
		t.Errorf("connections are %+v, want %d with %s", connections, clients+1, member.SocketID)
	}
	var info struct {
		Nodes []struct {
			Name       string
			NumClients int `json:"num_clients"`
		}
	}
	serverAPI(t, c, "info", `{}`, &info)
	sum := 0
	for _, n := range info.Nodes {
		sum += n.NumClients
	}
	if sum != clients+1 || len(info.Nodes) < len(c.Nodes) {
		t.Errorf("info is %+v, want %d clients on %d nodes", info, clients+1, len(c.Nodes))
	}
	member.Close()
}

// overGRPC publishes as RoadRunner does: without a key, packed.
func overGRPC(t *testing.T, c *env.Cluster, readers []*client.Client) {
	t.Helper()
	conn, err := grpc.NewClient(c.API.CentrifugoGRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	res, err := apipb.NewCentrifugoApiClient(conn).Batch(t.Context(), &apipb.BatchRequest{Commands: []*apipb.Command{
		{Publish: &apipb.PublishRequest{Channel: "durable-a", Data: []byte(`"packed"`), SkipHistory: true}},
		{History: &apipb.HistoryRequest{Channel: "durable-a", Limit: 9}},
	}}, grpc.UseCompressor(gzip.Name))
	if r := res.GetReplies(); err != nil || len(r) != 2 || r[0].GetError() != nil || len(r[1].GetHistory().GetPublications()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
	for _, reader := range readers {
		if f := reader.Expect("message"); f.Channel != "durable-a" || f.Text() != `"packed"` {
			t.Errorf("a client got %s", f.Raw)
		}
	}
}
