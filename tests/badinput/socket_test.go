package badinput

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/signature"
)

// patience is how long a socket may be used. Several times the timeouts of the
// servers here; a test that fails should do so soon.
const patience = 10 * time.Second

// socket is a connection that can break every rule.
type socket struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	id   string // as the server greeted it
}

// connect opens a connection and sends nothing.
func (w *world) connect(t *testing.T, addr string) *socket {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &socket{t: t, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// upgrade is the request for a WebSocket, more is extra header lines.
func upgrade(path, more string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + more + "\r\n"
}

// open connects and upgrades; nothing is read after that.
func (w *world) open(t *testing.T, path, more string) *socket {
	t.Helper()
	s := w.connect(t, w.gateway())
	s.write([]byte(upgrade(path, more)))
	if res := s.response(); res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade of %s answered with %s", path, res.Status)
	}
	return s
}

// greeted is open for an app's key, with the greeting read.
func (w *world) greeted(t *testing.T, key string) *socket {
	t.Helper()
	s := w.open(t, "/app/"+key+"?protocol=7", "")
	hello := s.text()
	_, rest, ok := strings.Cut(hello, `socket_id\":\"`)
	s.id, _, _ = strings.Cut(rest, `\"`)
	if !ok || s.id == "" {
		t.Fatalf("greeted with %s", hello)
	}
	return s
}

func (s *socket) write(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// send sends one text message.
func (s *socket) send(text string) { s.t.Helper(); s.write(frame(0x81, []byte(text))) }

func (s *socket) response() *http.Response {
	s.t.Helper()
	res, err := http.ReadResponse(s.in, nil)
	if err != nil {
		s.t.Fatalf("read the answer: %v", err)
	}
	return res
}

// answered checks an HTTP answer: status and whole body.
func (s *socket) answered(status int, body string) *http.Response {
	s.t.Helper()
	res := s.response()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode != status || string(got) != body {
		s.t.Fatalf("answered %d %q, want %d %q", res.StatusCode, got, status, body)
	}
	return res
}

// ends checks that nothing more comes but the end of the connection.
func (s *socket) ends() {
	s.t.Helper()
	rest, err := io.ReadAll(io.LimitReader(s.in, 4<<10))
	if err != nil && !strings.Contains(err.Error(), "reset") {
		s.t.Fatalf("the connection does not end: %v", err)
	}
	if len(rest) > 0 {
		s.t.Fatalf("%q came after what should be the end", rest)
	}
}

// read reads one frame.
func (s *socket) read() (ws.OpCode, []byte) {
	s.t.Helper()
	h, err := ws.ReadHeader(s.in)
	if err != nil {
		s.t.Fatalf("read a frame: %v", err)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		s.t.Fatalf("read a frame: %v", err)
	}
	return h.OpCode, payload
}

// text reads one message. Counts of subscribers come when they will, and are
// passed over.
func (s *socket) text() string {
	s.t.Helper()
	for {
		op, payload := s.read()
		if op != ws.OpText {
			s.t.Fatalf("got op %d %q, want a text", op, payload)
		}
		if !bytes.Contains(payload, []byte("pusher_internal:subscription_count")) {
			return string(payload)
		}
	}
}

// gets checks that exactly these messages come next.
func (s *socket) gets(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if got := s.text(); got != w {
			s.t.Fatalf("got  %s\nwant %s", got, w)
		}
	}
}

// closed checks that a close frame comes next and then the end.
func (s *socket) closed(code int, reason string) {
	s.t.Helper()
	op, payload := s.read()
	if op != ws.OpClose || len(payload) < 2 {
		s.t.Fatalf("got op %d %q, want close %d", op, payload, code)
	}
	if got := int(binary.BigEndian.Uint16(payload)); got != code || string(payload[2:]) != reason {
		s.t.Fatalf("closed with %d %q, want %d %q", got, payload[2:], code, reason)
	}
	if c, ok := s.conn.(*net.TCPConn); ok {
		_ = c.CloseWrite() // the server may have closed it already
	}
	s.ends()
}

// alive checks that the connection is still served, and that nothing was
// waiting to be read.
func (s *socket) alive() {
	s.t.Helper()
	s.send(`{"event":"pusher:ping","data":{}}`)
	s.gets(`{"event":"pusher:pong","data":"{}"}`)
}

// subscribes subscribes to a channel and must succeed.
func (s *socket) subscribes(message string) {
	s.t.Helper()
	s.send(message)
	if got := s.text(); !strings.Contains(got, "pusher_internal:subscription_succeeded") {
		s.t.Fatalf("%s was answered with %s", message, got)
	}
}

// frame is a masked frame; first is FIN, RSV and opcode.
func frame(first byte, payload []byte) []byte {
	out := header(first, 0x80, len(payload))
	return append(append(out, 0, 0, 0, 0), payload...) // masked with zeroes
}

func header(first, mask byte, n int) []byte {
	switch {
	case n < 126:
		return []byte{first, mask | byte(n)}
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(n))
	}
	return binary.BigEndian.AppendUint64([]byte{first, mask | 127}, uint64(n))
}

func closeFrame(code int) []byte {
	return frame(0x88, binary.BigEndian.AppendUint16(nil, uint16(code)))
}

// quoted is s as JSON.
func quoted(s string) string { return string(jsonx.AppendString(nil, s)) }

// errorFrame is a pusher:error; code 0 is null, which leaves the connection.
func errorFrame(code int, message string) string {
	number := "null"
	if code != 0 {
		number = fmt.Sprint(code)
	}
	return `{"event":"pusher:error","data":{"code":` + number + `,"message":` + quoted(message) + `}}`
}

// refusedSubscription are the two messages that tell of one.
func refusedSubscription(channel, kind string, status int, message string) []string {
	code := 0
	if kind == "AuthError" {
		code = 4009
	}
	data := `{"type":"` + kind + `","error":` + quoted(message) + `,"status":` + fmt.Sprint(status) + `}`
	return []string{
		errorFrame(code, message),
		`{"event":"pusher:subscription_error","channel":` + quoted(channel) + `,"data":` + quoted(data) + `}`,
	}
}

// subscribe is the message of a client; auth and data may be "".
func subscribe(channel, auth, data string) string {
	return `{"event":"pusher:subscribe","data":{"channel":` + quoted(channel) + `,"auth":` + quoted(auth) + `,"channel_data":` + quoted(data) + `}}`
}

// signed is subscribe with the signature of a key.
func signed(id, channel, data, key, secret string) string {
	return subscribe(channel, signature.Auth(key, secret, signature.Channel(id, channel, data)), data)
}
