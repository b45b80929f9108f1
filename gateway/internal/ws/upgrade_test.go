package ws

import (
	"errors"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

const goodHandshake = "GET /app/key HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

func parse(t *testing.T, text string) *httphead.Head {
	t.Helper()
	var h httphead.Head
	if err := h.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return &h
}

func TestCheckUpgrade(t *testing.T) {
	cases := map[string]struct {
		old, new string
		status   int // 0: accepted
	}{
		"as in RFC 6455 1.2":    {"", "", 0},
		"not a GET":             {"GET", "POST", 400},
		"HTTP/1.0":              {"HTTP/1.1", "HTTP/1.0", 400},
		"no host":               {"Host: a\r\n", "", 400},
		"no upgrade":            {"Upgrade: WebSocket\r\n", "", 400},
		"other upgrade":         {"Upgrade: WebSocket", "Upgrade: h2c", 400},
		"upgrade list":          {"Upgrade: WebSocket", "Upgrade: h2c, websocket", 0},
		"no connection":         {"Connection: keep-alive, Upgrade\r\n", "", 400},
		"connection close":      {"keep-alive, Upgrade", "close", 400},
		"version 8":             {"Version: 13", "Version: 8", 426},
		"no version":            {"Sec-WebSocket-Version: 13\r\n", "", 426},
		"no key":                {"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400},
		"15 byte key":           {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400},
		"18 byte key":           {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWFh", 400},
		"key that isn't base64": {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q==", 400},
		"two keys":              {"Host: a\r\n", "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := CheckUpgrade(parse(t, strings.Replace(goodHandshake, c.old, c.new, 1)))
			if c.status == 0 {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var he *HandshakeError
			if !errors.As(err, &he) || he.Status != c.status {
				t.Fatalf("got %v, want status %d", err, c.status)
			}
		})
	}
}

func TestAppendUpgradeAnswersTheKeyOfTheRFC(t *testing.T) {
	got := string(AppendUpgrade(nil, parse(t, goodHandshake), "v1"))
	for _, want := range []string{"HTTP/1.1 101 ", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "Sec-WebSocket-Protocol: v1\r\n\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("answer %q lacks %q", got, want)
		}
	}
}
