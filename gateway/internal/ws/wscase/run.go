package wscase

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	gobwas "github.com/gobwas/ws"
)

// Target is the server under test.
type Target struct {
	Addr string // host:port
	Path string // of the WebSocket endpoint
	// Echo: the server sends every message back and nothing else. Without it
	// cases that need an echo are skipped, and messages that come unasked, such
	// as a greeting, are ignored.
	Echo bool
	// Greets: the server begins with one message of its own, which is not
	// compared with anything.
	Greets bool
}

// Runs reports whether c makes sense against t.
func (t Target) Runs(c *Case) bool { return t.Echo || !c.Echo }

// Run runs one case on a connection of its own. ctx bounds it. The error says
// what was expected and what came.
func (t Target) Run(ctx context.Context, c *Case) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
	}
	r := &run{target: t, c: c, conn: conn, in: bufio.NewReader(conn)}
	if err := r.handshake(); err != nil || r.done {
		return err
	}
	return r.converse()
}

// run is the state of one case.
type run struct {
	target Target
	c      *Case
	conn   net.Conn
	in     *bufio.Reader
	done   bool
}

// handshake sends the request and checks the answer. r.done is set when the
// case is about nothing else.
func (r *run) handshake() error {
	request := []byte(fmt.Sprintf(good, r.target.Path))
	if r.c.Handshake != "" {
		request = []byte(strings.Replace(r.c.Handshake, "%s", r.target.Path, 1))
	}
	if r.c.Pipelined {
		request = append(request, bytes.Join(r.c.Send, nil)...)
	}
	if err := r.write(request, r.c.Bytewise); err != nil {
		return fmt.Errorf("write handshake: %w", err)
	}
	res, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return fmt.Errorf("read answer to handshake: %w", err)
	}
	if len(r.c.Want) > 0 && r.c.Want[0].Status != 0 {
		r.done = true
		return r.checkRefusal(res, r.c.Want[0])
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("handshake answered with %s", res.Status)
	}
	if got := res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("Sec-WebSocket-Accept is %q", got)
	}
	return nil
}

func (r *run) checkRefusal(res *http.Response, want Want) error {
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("read body of answer: %w", err)
	}
	if res.StatusCode != want.Status {
		return fmt.Errorf("handshake answered with %s, want %d", res.Status, want.Status)
	}
	name, value, _ := strings.Cut(want.Header, ": ")
	if got := res.Header.Get(name); name != "" && got != value {
		return fmt.Errorf("%s is %q, want %q", name, got, value)
	}
	return r.ends()
}

// converse sends the frames and checks what comes back.
func (r *run) converse() error {
	sent := make(chan error, 1)
	go func() { sent <- r.send() }()
	want := r.c.Want
	if len(want) == 0 || want[len(want)-1].Op != Close {
		want = append(want[:len(want):len(want)], Want{Op: Close, Code: 1000})
	}
	failed := r.greeting()
	if failed != nil {
		_ = r.conn.Close()
		want = nil
	}
	for _, w := range want {
		if failed = r.expect(w); failed != nil {
			_ = r.conn.Close() // lets the sender end
			break
		}
	}
	if err := <-sent; failed == nil && err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if failed != nil {
		return failed
	}
	return r.ends()
}

// greeting reads the server's first message where it sends one unasked.
func (r *run) greeting() error {
	if !r.target.Greets {
		return nil
	}
	h, payload, err := r.frame()
	if err != nil {
		return fmt.Errorf("want a greeting: %w", err)
	}
	if h.OpCode != gobwas.OpText {
		return fmt.Errorf("want a greeting, got op %d %.60q", h.OpCode, payload)
	}
	return nil
}

// send writes the case's frames, and a close frame where the case has none.
func (r *run) send() error {
	if !r.c.Pipelined {
		for _, b := range r.c.Send {
			if err := r.write(b, r.c.Bytewise); err != nil {
				return err
			}
		}
	}
	if n := len(r.c.Want); n == 0 || r.c.Want[n-1].Op != Close {
		return r.write(Frame(Fin|Close, CloseBody(1000, "done")), false)
	}
	return nil
}

func (r *run) write(b []byte, bytewise bool) error {
	for bytewise && len(b) > 1 {
		if _, err := r.conn.Write(b[:1]); err != nil {
			return err
		}
		b = b[1:]
	}
	_, err := r.conn.Write(b)
	return err
}

// expect reads one frame and compares.
func (r *run) expect(want Want) error {
	for {
		h, payload, err := r.frame()
		if err != nil {
			return fmt.Errorf("want %v: %w", want, err)
		}
		op := byte(h.OpCode)
		if !r.target.Echo && (op == Text || op == Binary) {
			continue
		}
		got := Want{Op: op, Payload: payload}
		if op == Close && len(payload) >= 2 {
			got.Code = int(binary.BigEndian.Uint16(payload))
		}
		if got.Op != want.Op || got.Code != want.Code || (op != Close && !bytes.Equal(got.Payload, want.Payload)) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		return nil
	}
}

// frame reads one frame of the server and checks what holds for all of them.
func (r *run) frame() (gobwas.Header, []byte, error) {
	h, err := gobwas.ReadHeader(r.in)
	if err != nil {
		return h, nil, fmt.Errorf("read frame: %w", err)
	}
	if h.Masked || h.Rsv != 0 || !h.Fin {
		return h, nil, fmt.Errorf("server sent a frame that is masked, fragmented or has reserved bits: %+v", h)
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(r.in, payload)
	return h, payload, err
}

// ends checks that the server ends the connection and sends nothing more. A
// server that closed first may wait for the client's side, which ends here.
func (r *run) ends() error {
	if c, ok := r.conn.(*net.TCPConn); ok {
		if err := c.CloseWrite(); err != nil && !isReset(err) {
			return fmt.Errorf("close: %w", err)
		}
	}
	rest, err := io.ReadAll(io.LimitReader(r.in, 1<<10))
	if err != nil && !isReset(err) {
		return fmt.Errorf("wait for the end of the connection: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes after the end: %.60q", len(rest), rest)
	}
	return nil
}

// isReset: a server may answer what it no longer reads with a reset.
func isReset(err error) bool {
	text := err.Error()
	return strings.Contains(text, "reset") || strings.Contains(text, "not connected") || strings.Contains(text, "broken pipe")
}

// Timeout bounds a case.
const Timeout = 10 * time.Second
