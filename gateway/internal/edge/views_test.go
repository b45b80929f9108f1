package edge

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/fossil"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
)

// startViews starts an edge whose channels allow differences and filters.
func startViews(t *testing.T) *fixture {
	t.Helper()
	return startWith(t, func(cfg *Config) {
		cfg.Protocols = []Protocol{Centrifugo(codec.New(codec.JSON)), Centrifugo(codec.New(codec.Protobuf))}
		cfg.Answers = &answers{}
	}, func(a *app.App) {
		a.Centrifugo.Enabled = true
		a.Policies = []app.Policy{{Match: "*", Delta: true, TagsFilter: true}}
	})
}

// reader is a client that knows the data that differences are to.
type reader struct {
	*wsClient
	before []byte
	deltas int
}

// next reads a publication and gives its data whole.
func (r *reader) next() string {
	r.t.Helper()
	var m struct {
		Push struct {
			Pub struct {
				Data  string
				Delta bool
			}
		}
	}
	text := r.expect(`"pub":`)
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
	if !m.Push.Pub.Delta {
		r.before = []byte(m.Push.Pub.Data)
		return m.Push.Pub.Data
	}
	r.deltas++
	data, err := fossil.Apply(r.before, []byte(m.Push.Pub.Data), 1<<20)
	if err != nil {
		r.t.Fatalf("%s: %v, having %s", text, err, r.before)
	}
	r.before = data
	return string(data)
}

// Clients that come, go and are excluded at any time get all that is published
// to them, by differences to what they have got.
func TestDifferences(t *testing.T) {
	f := startViews(t)
	r := rand.New(rand.NewPCG(3, 4))
	document := func(n int) string {
		return fmt.Sprintf(`{"n":%d,"text":"it is long enough to be worth a difference, ž","list":[%d,%d]}`, n, n/2, r.IntN(3))
	}
	var readers []*reader
	join := func() {
		c := &reader{wsClient: f.client("")}
		c.send(`{"id":2,"subscribe":{"channel":"a","delta":"fossil"}}`)
		c.expect(`{"id":2,"subscribe":{"delta":true}}`)
		readers = append(readers, c)
	}
	join()
	deltas := 0
	for n := range 200 {
		data := document(n)
		excluded := -1
		if r.IntN(4) == 0 {
			excluded = r.IntN(len(readers))
		}
		f.publish("a", 0, func(pub *message.Publication) {
			pub.Event, pub.Data = "", []byte(data)
			if excluded >= 0 {
				pub.Exclude = readers[excluded].id
			}
		})
		for i, c := range readers {
			if i == excluded {
				continue
			}
			if got := c.next(); got != data {
				t.Fatalf("publication %d is %s to client %d, want %s", n, got, i, data)
			}
		}
		switch {
		case r.IntN(8) == 0 && len(readers) < 6:
			join()
		case r.IntN(12) == 0 && len(readers) > 1:
			c := readers[0]
			readers = readers[1:]
			deltas += c.deltas
			c.send(`{"id":3,"unsubscribe":{"channel":"a"}}`)
			c.expect(`{"id":3,"unsubscribe":{}}`)
		}
	}
	for _, c := range readers {
		deltas += c.deltas
	}
	if deltas < 200 {
		t.Errorf("%d publications came as differences, expected more", deltas)
	}
}

func TestFilters(t *testing.T) {
	f := startViews(t)
	tagged := func(team string) {
		f.publish("a", 0, func(pub *message.Publication) {
			pub.Event, pub.Data, pub.Tags = "", []byte(`"`+team+`"`), []message.Tag{{Key: "team", Value: team}}
		})
	}
	filtered := func(filter string) *wsClient {
		c := f.client("")
		c.send(`{"id":2,"subscribe":{"channel":"a","tf":%s}}`, filter)
		c.expect(`{"id":2,"subscribe":{}}`)
		return c
	}
	red, blue, alsoRed, all := filtered(`{"key":"team","cmp":"eq","val":"red"}`), filtered(`{"key":"team","cmp":"neq","val":"red"}`),
		filtered(`{"key":"team","cmp":"eq","val":"red"}`), f.client("")
	all.join("a")
	for _, team := range []string{"red", "blue", "green", "red"} {
		tagged(team)
	}
	f.publish("a", 0, func(pub *message.Publication) { pub.Event = "untagged" })
	expect := func(c *wsClient, words ...string) {
		t.Helper()
		for _, w := range words {
			c.expect(w)
		}
	}
	expect(all, `"data":"red"`, `"data":"blue"`, `"data":"green"`, `"data":"red"`, `"event":"untagged"`)
	expect(red, `"data":"red"`, `"data":"red"`)
	expect(alsoRed, `"data":"red"`, `"data":"red"`)
	expect(blue, `"data":"blue"`, `"data":"green"`, `"event":"untagged"`)
	said := filtered(`{"key":"event","cmp":"eq","val":"said"}`)
	f.publish("a", 0)
	f.publish("a", 0, func(pub *message.Publication) { pub.Event = "said" })
	expect(said, `"event":"said"`)
	for _, c := range []*wsClient{red, blue, alsoRed, said} {
		c.send(`{"id":3,"unsubscribe":{"channel":"a"}}`)
		for !strings.Contains(c.expect(""), `"id":3`) { // what came before
			continue
		}
	}
	err := f.edge.onLoops(t.Context(), func(h *handler) {
		if n := len(h.filters.byName); n != 0 {
			t.Errorf("a loop has %d filters that nobody uses", n)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilterNumbers(t *testing.T) {
	var f filters
	make := func(key string) *tagfilter.Filter {
		filter, err := tagfilter.New(&tagfilter.Node{Key: key, Cmp: "ex"})
		if err != nil {
			t.Fatal(err)
		}
		return filter
	}
	use := func(key string, want uint16) {
		t.Helper()
		if n, ok := f.use(make(key)); n != want || !ok {
			t.Errorf("filter %s has number %d, %v, want %d", key, n, ok, want)
		}
	}
	use("a", 1)
	use("b", 2)
	use("a", 1)
	f.leave(1)
	use("c", 3)
	f.leave(1)
	use("d", 1)
	if got := f.of(hub.KindOf(7, 1)).filter; got == nil || got.Name() != make("d").Name() {
		t.Errorf("number 1 is %v", got)
	}
	if n, ok := f.use(nil); n != 0 || !ok {
		t.Errorf("no filter has number %d", n)
	}
}
