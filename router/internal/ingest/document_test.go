package ingest

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

func TestEncodeDocument(t *testing.T) {
	got := string(encodeDocument([]publisher.Receipt{
		{},
		{Position: 1025, Epoch: `a"b`},
		{Position: 7, Epoch: "e", Duplicate: true},
		{Err: publisher.ErrBusy},
		{Err: refuse(publisher.BadEvent, "no <b>")},
	}))
	want := `{"receipts":[{},{"position":1025,"epoch":"a\"b"},{"position":7,"epoch":"e","duplicate":true},` +
		`{"error":"too many publications are waiting, try again","code":2,"retry":true},{"error":"no <b>","code":6}]}`
	if got != want {
		t.Errorf("encoded\n%s, want\n%s", got, want)
	}
	if got := string(encodeRefusal(refuse(publisher.BadPublication, `"x"`))); got != `{"error":"\"x\"","receipts":[]}` {
		t.Errorf("refusal is %s", got)
	}
}

func TestTagsKeepTheirOrder(t *testing.T) {
	pubs, _, err := new(documents).parse("1", []byte(`{"channel":"c","data":null,"tags":{"z":"1","a":"2"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []message.Tag{{Key: "z", Value: "1"}, {Key: "a", Value: "2"}}; !reflect.DeepEqual(pubs[0].Tags, want) {
		t.Errorf("tags are %v, want %v", pubs[0].Tags, want)
	}
	if string(pubs[0].Data) != "null" {
		t.Errorf("data is %q, want null as it came", pubs[0].Data)
	}
}

func FuzzParseDocument(f *testing.F) {
	for _, seed := range []string{
		`{"channel":"c","event":"e","data":"x"}`, `{"channels":["a","b"],"data":{"a":1},"tags":{"k":"v"}}`,
		`{"batch":[{"channel":"c","data":[1, 2]},{}]}`, `{"batch":[]}`, `{"tags":null,"data":"\ud800"}`, `{`,
		`{"Channel":"c","data":1}`, `{"channel":"c","channel":null,"data":1}`, `{"channel":"\u0061\ud83d\ude00\ud800x","extra":[{}],"data":{}}`,
		`{"batch":null,"channels":null}`, `{"batch":[null]}`, `{"batch":[{"batch":[]}]}`, "{\"channel\":\"\xff\"}", `{"channels":[1]}`, `{"channels":[null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pubs, errs, err := new(documents).parse("1", raw)
		if all, plain := appendPlain(nil, raw); plain {
			var doc document
			if err := json.Unmarshal(raw, &doc); err != nil {
				t.Fatalf("%q is taken for plain: %v", raw, err)
			}
			sameMeaning(t, all, doc)
		}
		if err != nil {
			if !json.Valid(encodeRefusal(err)) {
				t.Fatalf("the refusal of %q is no JSON", raw)
			}
			return
		}
		if len(pubs) == 0 || len(pubs) != len(errs) || len(pubs) > message.BatchPublicationsMax {
			t.Fatalf("%d publications, %d errors", len(pubs), len(errs))
		}
		receipts := make([]publisher.Receipt, len(pubs))
		for i := range receipts {
			receipts[i].Err = errs[i]
		}
		if !json.Valid(encodeDocument(receipts)) {
			t.Fatalf("the reply to %q is no JSON", raw)
		}
	})
}

// sameMeaning compares what a plain document was read as with what
// encoding/json makes of it.
func sameMeaning(t *testing.T, got []single, doc document) {
	t.Helper()
	want := doc.Batch
	if want == nil {
		want = []single{doc.single}
	}
	if len(got) != len(want) {
		t.Fatalf("%d items, want %d", len(got), len(want))
	}
	for i := range got {
		g, w := &got[i], &want[i]
		if len(g.Channels) == 0 && len(w.Channels) == 0 {
			g.Channels, w.Channels = nil, nil
		}
		if !reflect.DeepEqual(g, w) {
			t.Fatalf("item %d is %+v, want %+v", i, g, w)
		}
		var text string
		if len(g.Data) == 0 || g.Data[0] != '"' {
			continue
		}
		if err := json.Unmarshal(g.Data, &text); err != nil {
			t.Fatal(err)
		}
		if data, err := g.payload(); err != nil || string(data) != text {
			t.Fatalf("data of item %d is %q (%v), want %q", i, data, err, text)
		}
	}
}

func TestPlainDocumentsAreRecognised(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		want      bool
	}{
		{"one", `{"channel":"c","event":"e","data":"x","other":1}`, true},
		{"several channels and tags", ` {"channels":["a","b"],"data":{"x":1},"tags":{"k":"v"}} `, true},
		{"batch", `{"batch":[{"channel":"c","data":1},{"channel":"d","data":2}]}`, true},
		{"another spelling", `{"Channel":"c","data":1}`, false},
		{"a member twice", `{"data":1,"data":2}`, false},
		{"null", `{"channel":null,"data":2}`, false},
		{"empty batch", `{"batch":[]}`, false},
		{"not in UTF-8", "{\"channel\":\"\xff\"}", false},
	} {
		if _, plain := appendPlain(nil, []byte(tc.raw)); plain != tc.want {
			t.Errorf("%s: plain is %v, want %v", tc.name, plain, tc.want)
		}
	}
}

// documentAllocsMax is how much a batch of ten plain publications may
// allocate.
const documentAllocsMax = 1

func TestDocumentAllocations(t *testing.T) {
	raw := []byte(`{"batch":[` + strings.Repeat(`{"channel":"c","event":"e","data":"x"},`, 9) + `{"channel":"c","event":"e","data":"x"}]}`)
	d := &documents{}
	n := testing.AllocsPerRun(100, func() {
		if pubs, _, err := d.parse("1", raw); err != nil || len(pubs) != 10 {
			t.Fatal(err)
		}
		d.forget()
	})
	if n > documentAllocsMax {
		t.Errorf("%v allocations per document, the budget is %d", n, documentAllocsMax)
	}
}
