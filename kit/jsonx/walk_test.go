package jsonx_test

import (
	"encoding/json"
	"testing"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

func TestUnquote(t *testing.T) {
	for _, tc := range []struct{ quoted, want string }{
		{`""`, ""},
		{`"abc"`, "abc"},
		{`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t"},
		{`"a\u00e9b"`, "aéb"},
		{`"\ud83d\ude00"`, "😀"},
		{`"\ud83d"`, "\ufffd"},
		{`"\ude00\ud83d"`, "\ufffd\ufffd"},
		{`"\ud83dx"`, "\ufffdx"},
		{`"\ud83d\u0041"`, "\ufffdA"},
		{`"\u0000"`, "\x00"},
	} {
		if got := string(jsonx.Unquote([]byte(tc.quoted))); got != tc.want {
			t.Errorf("%s is %q, want %q", tc.quoted, got, tc.want)
		}
	}
}

func TestWalker(t *testing.T) {
	const document = ` { "a" : [ 1 , "]" , {"x":2} ] , "\u0062":null, "c" : -1e3 } `
	want := map[string]string{"a": `[ 1 , "]" , {"x":2} ]`, "b": "null", "c": "-1e3"}
	w := jsonx.Walk([]byte(document))
	if !w.Enter('{') {
		t.Fatal("it is not an object")
	}
	for w.More('}') {
		name, value := w.Member()
		if string(value) != want[name] {
			t.Errorf("%s is %s, want %s", name, value, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}

func FuzzUnquote(f *testing.F) {
	f.Add(`"\ud83d\ud83d\ude00"`)
	f.Fuzz(func(t *testing.T, quoted string) {
		var want string
		if json.Unmarshal([]byte(quoted), &want) != nil || quoted[0] != '"' || !jsonx.Valid([]byte(quoted)) || quoted[len(quoted)-1] != '"' {
			return
		}
		if got := string(jsonx.Unquote([]byte(quoted))); got != want && got == string([]rune(got)) {
			t.Fatalf("%q is %q, want %q", quoted, got, want)
		}
	})
}
