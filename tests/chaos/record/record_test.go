package record_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/chaos/record"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	r := record.New()
	r.Add(record.Entry{Kind: record.Publish, Actor: "p", Channel: "durable-a", ID: "p-1", Keyed: true})
	r.Add(record.Entry{Kind: record.Subscribed, Session: 7, Channel: "presence-a", User: "u", Users: []string{"u", "v"}})
	r.Add(record.Entry{Kind: record.Closed, Session: 7, Left: true, Text: "done"})
	var b bytes.Buffer
	if err := record.Write(&b, r.Entries()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 3 {
		t.Errorf("%d lines, want 3", n)
	}
	got, err := record.Read(&b)
	if err != nil || !reflect.DeepEqual(got, r.Entries()) {
		t.Errorf("read %+v (%v), want %+v", got, err, r.Entries())
	}
}

func TestWhatIsNoRecord(t *testing.T) {
	for _, text := range []string{"{\"us\":1}\n{", `{"us": "soon"}`, `{"hello":1}`} {
		if got, err := record.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read as %+v", text, got)
		}
	}
}
