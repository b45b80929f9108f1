package jsonx_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

func TestAppendString(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain run", "news", `"news"`},
		{"quote and backslash", `a"b\c`, `"a\"b\\c"`},
		{"short escapes", "\n\r\t\b\f", `"\n\r\t\b\f"`},
		{"other controls", "\x00\x1f\x7f", "\"\\u0000\\u001f\x7f\""},
		{"html is left alone", "<a href='x'>&</a>", `"<a href='x'>&</a>"`},
		{"line separators are left alone", "a\u2028b\u2029", "\"a\u2028b\u2029\""},
		{"multi-byte", "žluť 🎉", `"žluť 🎉"`},
		{"a real U+FFFD", "\uFFFD", "\"\uFFFD\""},
		{"lone bytes", "a\xffb\xc3", "\"a\uFFFDb\uFFFD\""},
		{"truncated rune", "\xf0\x9f\x8e", "\"\uFFFD\uFFFD\uFFFD\""},
		{"surrogate half", "\xed\xa0\x80", "\"\uFFFD\uFFFD\uFFFD\""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(jsonx.AppendString([]byte("x"), tt.in)); got != "x"+tt.want {
				t.Errorf("AppendString = %s, want x%s", got, tt.want)
			}
			if got := string(jsonx.AppendStringBytes(nil, []byte(tt.in))); got != tt.want {
				t.Errorf("AppendStringBytes = %s, want %s", got, tt.want)
			}
		})
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\xff\x00<>\u2028\"\\")
	f.Fuzz(func(t *testing.T, s string) {
		out := jsonx.AppendString(nil, s)
		if !utf8.Valid(out) || !jsonx.Valid(out) {
			t.Fatalf("not valid JSON: %q", out)
		}
		var back string
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatal(err)
		}
		if want := replaceInvalid(s); back != want {
			t.Fatalf("round trip: %q, want %q", back, want)
		}
		if b := jsonx.AppendStringBytes(nil, []byte(s)); !bytes.Equal(b, out) {
			t.Fatalf("bytes differ from string: %q, %q", b, out)
		}
	})
}

// replaceInvalid replaces each invalid byte by itself; strings.ToValidUTF8 would join neighbours.
func replaceInvalid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func TestCompact(t *testing.T) {
	got, err := jsonx.Compact([]byte(">"), []byte(" { \"a\" : [ 1.50 , \"<x> y\" ] }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := `>{"a":[1.50,"<x> y"]}`; string(got) != want {
		t.Errorf("Compact = %s, want %s", got, want)
	}
	got, err = jsonx.Compact([]byte("keep"), []byte(`{"a":`))
	if err == nil || string(got) != "keep" {
		t.Errorf("Compact of a broken document = %q, %v; want dst unchanged and an error", got, err)
	}
}

func TestAppendStringNoAlloc(t *testing.T) {
	buf := make([]byte, 0, 256)
	raw := []byte("žluť \"quoted\" \xff tail")
	text := string(raw)
	n := testing.AllocsPerRun(100, func() {
		buf = jsonx.AppendString(buf[:0], text)
		buf = jsonx.AppendStringBytes(buf[:0], raw)
	})
	if n != 0 {
		t.Errorf("%v allocations per call, want 0", n)
	}
}

func BenchmarkAppendString(b *testing.B) {
	buf := make([]byte, 0, 512)
	s := strings.Repeat("presence-room.42 ", 15)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		buf = jsonx.AppendString(buf[:0], s)
	}
}
