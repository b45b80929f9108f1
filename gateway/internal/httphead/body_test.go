package httphead

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

const bodyMax = 64

// readBody reads the body of a request whose bytes come in steps.
func readBody(raw []byte, step int) (body, rest []byte, err error) {
	var s Scanner
	n, err := s.Scan(raw)
	if n == 0 {
		return nil, nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	var h Head
	if err := h.Parse(raw[:n]); err != nil {
		return nil, nil, err
	}
	b, err := h.Body(bodyMax)
	if err != nil {
		return nil, nil, err
	}
	raw = raw[n:]
	if step == 0 {
		if whole := b.Whole(raw); whole != nil {
			return whole, raw[len(whole):], nil
		}
		step = len(raw)
	}
	for !b.Done() {
		if len(raw) == 0 {
			return body, nil, io.ErrUnexpectedEOF
		}
		var used int
		if body, used, err = b.Read(body, raw[:min(step, len(raw))]); err != nil {
			return body, nil, err
		}
		raw = raw[used:]
	}
	return body, raw, nil
}

func TestBody(t *testing.T) {
	const post, old = "POST / HTTP/1.1\r\nHost: h\r\n", "POST / HTTP/1.0\r\n"
	const chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct {
		raw    string
		body   string
		status int // 0: the body above, and "rest" behind it
	}{
		"none":                 {post + "\r\nrest", "", 0},
		"empty":                {post + "Content-Length: 0\r\n\r\nrest", "", 0},
		"length":               {post + "Content-Length: 5\r\n\r\nhellorest", "hello", 0},
		"old, length":          {old + "Content-Length: 5\r\n\r\nhellorest", "hello", 0},
		"full":                 {post + "Content-Length: 64\r\n\r\n" + strings.Repeat("x", 64) + "rest", strings.Repeat("x", 64), 0},
		"chunked":              {chunked + "5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\nrest", "hello!", 0},
		"chunked, none":        {chunked + "0\r\n\r\nrest", "", 0},
		"chunked, trailers":    {chunked + "00A \r\n0123456789\r\n0;x\r\nA: b\r\nC: d\r\n\r\nrest", "0123456789", 0},
		"chunked, in any case": {post + "transfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest", "abc", 0},
		"too large":            {post + "Content-Length: 65\r\n\r\n", "", 413},
		"huge":                 {post + "Content-Length: 99999999999999999999\r\n\r\n", "", 400},
		"negative":             {post + "Content-Length: -1\r\n\r\n", "", 400},
		"plus":                 {post + "Content-Length: +1\r\n\r\n", "", 400},
		"list":                 {post + "Content-Length: 1, 1\r\n\r\n", "", 400},
		"two lengths":          {post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "", 400},
		"length and chunked":   {post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "", 400},
		"gzip":                 {post + "Transfer-Encoding: gzip, chunked\r\n\r\n", "", 501},
		"old, chunked":         {old + "Transfer-Encoding: chunked\r\n\r\n", "", 400},
		"chunk too large":      {chunked + "41\r\n", "", 413},
		"chunks too large":     {chunked + "3f\r\n" + strings.Repeat("x", 63) + "\r\n2\r\n", "", 413},
		"chunk size overflows": {chunked + "100000000\r\n", "", 400},
		"no chunk size":        {chunked + "\r\n", "", 400},
		"chunk size is text":   {chunked + "5x\r\n", "", 400},
		"chunk without end":    {chunked + "1\r\nab", "", 400},
		"bare LF":              {chunked + "1\na", "", 400},
		"chunk extension":      {chunked + "1;\x01\r\n", "", 400},
		"trailer":              {chunked + "0\r\nA\x00\r\n\r\n", "", 400},
		"endless trailers":     {chunked + "0\r\n" + strings.Repeat("A: b\r\n", BytesMax/6+1), "", 400},
	} {
		for _, step := range []int{0, 1, 3} {
			body, rest, err := readBody([]byte(c.raw), step)
			var e *Error
			switch {
			case c.status != 0:
				if !errors.As(err, &e) || e.Status != c.status {
					t.Errorf("%s, in steps of %d: %q, %v, want status %d", name, step, body, err, c.status)
				}
			case err != nil || string(body) != c.body || string(rest) != "rest":
				t.Errorf("%s, in steps of %d: %q, then %q, %v", name, step, body, rest, err)
			}
		}
	}
}

func TestPersists(t *testing.T) {
	for raw, want := range map[string]bool{
		"GET / HTTP/1.1\r\n\r\n":                                             true,
		"GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\r\n":          true,
		"GET / HTTP/1.1\r\nConnection: Upgrade\r\nconnection: Close\r\n\r\n": false,
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n":                   false,
	} {
		var h Head
		if err := h.Parse([]byte(raw)); err != nil || h.Persists() != want {
			t.Errorf("%q: %v, %v", raw, h.Persists(), err)
		}
	}
}

// FuzzBody: no panic; pieces give what the whole gives; and what we accept
// net/http reads the same way, to the same end.
func FuzzBody(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhellorest"), uint8(2))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\nrest"), uint8(1))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nf \r\n0123456789abcde\r\n00\r\n\r\n"), uint8(9))
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		body, rest, err := readBody(raw, 0)
		again, restAgain, errAgain := readBody(raw, 1+int(step))
		if (err == nil) != (errAgain == nil) || err == nil && (!bytes.Equal(body, again) || !bytes.Equal(rest, restAgain)) {
			t.Fatalf("whole %q %q %v, in pieces %q %q %v", body, rest, err, again, restAgain, errAgain)
		}
		if err != nil {
			return
		}
		in := bufio.NewReader(bytes.NewReader(raw[LeadingBytes(raw):]))
		r, err := http.ReadRequest(in)
		if err != nil {
			return // net/http checks more of a head
		}
		theirs, err := io.ReadAll(r.Body)
		if err != nil {
			return // and of trailers and extensions
		}
		left, _ := io.ReadAll(in)
		if !bytes.Equal(body, theirs) || !bytes.Equal(rest, left) {
			t.Fatalf("we read %q, then %q; net/http %q, then %q", body, rest, theirs, left)
		}
	})
}
