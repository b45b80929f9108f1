package ingest

import (
	"encoding/json"
	"reflect"
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
	pubs, _, err := parseDocument("1", []byte(`{"channel":"c","data":null,"tags":{"z":"1","a":"2"}}`))
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
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pubs, errs, err := parseDocument("1", raw)
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
