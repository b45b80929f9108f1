package httphead

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func scanAndParse(raw []byte) (*Head, int, error) {
	var s Scanner
	n, err := s.Scan(raw)
	if err != nil || n == 0 {
		return nil, n, err
	}
	var h Head
	return &h, n, h.Parse(raw[:n])
}

func TestParse(t *testing.T) {
	raw := []byte("GET /app/key?protocol=7&client=js HTTP/1.1\r\nHost: example\r\nX-List: a, b\r\nx-list:c\t\r\nEmpty:\r\n\r\nrest")
	h, n, err := scanAndParse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if string(raw[n:]) != "rest" {
		t.Errorf("head ends before %q", raw[n:])
	}
	if h.Method != "GET" || h.Path != "/app/key" || h.RawQuery != "protocol=7&client=js" || h.Proto != "HTTP/1.1" {
		t.Errorf("request line parsed as %+v", h)
	}
	if got := slices.Collect(h.HeaderTokens("X-LIST")); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("tokens %q", got)
	}
	if !h.HeaderHas("x-list", "B") || h.HeaderHas("x-list", "d") || h.Header("EMPTY") != "" || h.Header("none") != "" {
		t.Error("header look-up is wrong")
	}
}

func TestParseTargets(t *testing.T) {
	cases := map[string]struct{ line, path, query string }{
		"path":           {"GET /a/b HTTP/1.1", "/a/b", ""},
		"query":          {"GET /a?b?c HTTP/1.1", "/a", "b?c"},
		"absolute":       {"GET http://h:80/a?b HTTP/1.1", "/a", "b"},
		"absolute bare":  {"GET http://h HTTP/1.1", "/", ""},
		"absolute query": {"GET http://h?q HTTP/1.1", "/", "q"},
		"asterisk":       {"OPTIONS * HTTP/1.0", "*", ""},
		"connect":        {"CONNECT h:443 HTTP/1.1", "h:443", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h, _, err := scanAndParse([]byte(c.line + "\r\nHost: h\r\n\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if h.Path != c.path || h.RawQuery != c.query {
				t.Errorf("got %q ? %q", h.Path, h.RawQuery)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	const ok = "GET / HTTP/1.1\r\n"
	cases := map[string]struct {
		raw    string
		status int
	}{
		"bare LF":               {"GET / HTTP/1.1\n\n", 400},
		"two empty lines first": {"\r\n\r\n" + ok, 400},
		"no version":            {"GET /\r\n\r\n", 400},
		"HTTP/2":                {"PRI * HTTP/2.0\r\n\r\n", 505},
		"HTTP/0.9":              {"GET / HTTP/0.9\r\n\r\n", 505},
		"not HTTP":              {"\x16\x03\x01 hello\r\n\r\n", 400},
		"method not a token":    {"G@T / HTTP/1.1\r\n\r\n", 400},
		"target with space":     {"GET /a b HTTP/1.1\r\n\r\n", 400},
		"target with control":   {"GET /\x01 HTTP/1.1\r\n\r\n", 400},
		"relative target":       {"GET a HTTP/1.1\r\n\r\n", 400},
		"field without colon":   {ok + "Host\r\n\r\n", 400},
		"space before colon":    {ok + "Host : a\r\n\r\n", 400},
		"empty name":            {ok + ": a\r\n\r\n", 400},
		"folded":                {ok + "A: b\r\n c\r\n\r\n", 400},
		"control in value":      {ok + "A: b\x00\r\n\r\n", 400},
		"CR in value":           {ok + "A: b\rc\r\n\r\n", 400},
		"two hosts":             {ok + "Host: a\r\nHost: b\r\n\r\n", 400},
		"too many fields":       {ok + strings.Repeat("A: b\r\n", FieldsMax+1) + "\r\n", 431},
		"too large":             {ok + "A: " + strings.Repeat("b", BytesMax) + "\r\n\r\n", 431},
		"endless line":          {strings.Repeat("G", BytesMax), 431},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, err := scanAndParse([]byte(c.raw))
			var e *Error
			if !errors.As(err, &e) || e.Status != c.status {
				t.Fatalf("got %v, want status %d", err, c.status)
			}
		})
	}
}

// FuzzHead: no panic; pieces give what the whole gives; and what we accept
// net/http reads the same way.
func FuzzHead(f *testing.F) {
	f.Add([]byte("GET /a?b HTTP/1.1\r\nHost: h\r\nA: b, c\r\n\r\nrest"), uint8(3))
	f.Add([]byte("\r\nPOST http://h/a HTTP/1.0\r\nA:\r\n\r\n"), uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), uint8(7))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), uint8(200))
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		var whole, pieces Scanner
		n, err := whole.Scan(raw)
		m, perr := 0, error(nil)
		for end := 0; m == 0 && perr == nil && end < len(raw); {
			end = min(end+1+int(step), len(raw))
			m, perr = pieces.Scan(raw[:end])
		}
		if m != n || (err == nil) != (perr == nil) {
			t.Fatalf("whole %d %v, in pieces %d %v", n, err, m, perr)
		}
		if n == 0 {
			return
		}
		var h Head
		if h.Parse(raw[:n]) != nil {
			return
		}
		compareWithNetHTTP(t, &h, raw[LeadingBytes(raw):n])
	})
}

func compareWithNetHTTP(t *testing.T, h *Head, raw []byte) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return // net/http checks more: hosts, escapes, lengths
	}
	if r.Method != h.Method || r.Proto != h.Proto {
		t.Fatalf("net/http reads %q %q, we %q %q", r.Method, r.Proto, h.Method, h.Proto)
	}
	for name, value := range h.Fields() {
		if equalFold(name, "Host") {
			continue
		}
		if !slices.Contains(r.Header.Values(name), strings.TrimSpace(value)) && !equalFold(name, "Transfer-Encoding") {
			t.Fatalf("field %q is %q, net/http has %q", name, value, r.Header.Values(name))
		}
	}
}

func TestClone(t *testing.T) {
	raw := []byte("POST /a?b HTTP/1.1\r\nHost: h\r\nEmpty:\r\nA: b\r\n\r\n")
	var h Head
	if err := h.Parse(raw); err != nil {
		t.Fatal(err)
	}
	c := h.Clone()
	for i := range raw {
		raw[i] = 'x'
	}
	if c.Method != "POST" || c.Path != "/a" || c.RawQuery != "b" || c.Proto != "HTTP/1.1" || c.Header("host") != "h" || c.Header("a") != "b" || c.Count("Empty") != 1 {
		t.Errorf("%+v", c)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "%7B%22id%22%3a1%7d": `{"id":1}`, "a+b%2B": "a b+", "%": "%", "%4": "%4", "%zz%41": "%zzA", "%+1": "% 1",
	} {
		if got := Unescape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
