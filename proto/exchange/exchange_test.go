package exchange

import (
	"reflect"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	for _, want := range []Request{
		{Op: Find, Name: "key/1/abc"},
		{Op: Send, ID: "12-34", Body: []byte("[]")},
		{Op: Poll, Name: "n", Exchange: 1 << 63, Begin: true, Wait: 25 * time.Second},
		{Op: Leave, Name: "n", Exchange: 7},
	} {
		got, err := ParseRequest(want.Append(nil))
		if len(got.Body) == 0 {
			got.Body = nil
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	want := Reply{Status: 200, Body: []byte("a[\"x\"]\n")}
	if got, err := ParseReply(want.Append(nil)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
}

func TestMalformed(t *testing.T) {
	good := (&Request{Op: Send, Name: "n", Body: []byte("x")}).Append(nil)
	for i := range good {
		if _, err := ParseRequest(good[:i]); err == nil {
			t.Errorf("%d bytes of a request were taken", i)
		}
	}
	for _, b := range [][]byte{nil, {2}, {1}, {1, 5, 0}, {1, 200, 1}, (&Reply{Status: 200, Body: []byte("x")}).Append(nil)[:4]} {
		if r, err := ParseReply(b); err == nil {
			t.Errorf("%v was taken for %+v", b, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add((&Request{Op: Poll, Name: "key/1/abc", Exchange: 7, Begin: true, Wait: time.Second}).Append(nil))
	f.Add((&Reply{Status: 200, Body: []byte("x")}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil {
			if again, err := ParseRequest(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		if r, err := ParseReply(b); err == nil {
			if again, err := ParseReply(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
	})
}
