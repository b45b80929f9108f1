package limit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// peer is a client's end.
type peer struct {
	*net.TCPConn
	t  *testing.T
	in *bufio.Reader
}

// dial connects and does not say anything.
func dial(t *testing.T, s *Server) *peer {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // tests that close it do that before
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{TCPConn: c.(*net.TCPConn), t: t, in: bufio.NewReaderSize(c, 64<<10)}
}

// join connects and has the connection established.
func join(t *testing.T, s *Server) *peer {
	t.Helper()
	p := dial(t, s)
	p.write([]byte(request))
	p.established()
	return p
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(op ws.OpCode, payload string) {
	p.t.Helper()
	p.write(masked(op, payload))
}

// established reads the answer to the request.
func (p *peer) established() {
	p.t.Helper()
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		line, err := p.in.ReadString('\n')
		if err != nil {
			p.t.Fatalf("after %q: %v", head.String(), err)
		}
		head.WriteString(line)
	}
	if !strings.HasPrefix(head.String(), "HTTP/1.1 101 ") || !strings.Contains(head.String(), accept) {
		p.t.Fatalf("the answer is %q", head.String())
	}
	if got := p.next(ws.OpText); !strings.Contains(got, `"pusher:connection_established"`) {
		p.t.Fatalf("the first text is %q", got)
	}
}

// next is the payload of the next frame, which has to be of that kind.
func (p *peer) next(op ws.OpCode) string {
	p.t.Helper()
	payload, err := p.read(op)
	if err != nil {
		p.t.Fatal(err)
	}
	return payload
}

func (p *peer) read(op ws.OpCode) (string, error) {
	h, err := ws.ReadHeader(p.in)
	if err != nil {
		return "", err
	}
	if h.OpCode != op || !h.Fin || h.Masked || h.Length > 1<<16 {
		return "", fmt.Errorf("got a frame %+v, want operation %d", h, op)
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(p.in, payload)
	return string(payload), err
}

func (p *peer) want(texts ...string) {
	p.t.Helper()
	for _, want := range texts {
		if got := p.next(ws.OpText); got != want {
			p.t.Fatalf("got %.80q, want %.80q", got, want)
		}
	}
}

// ended reads up to the end of the connection.
func (p *peer) ended() []byte {
	p.t.Helper()
	rest, err := io.ReadAll(p.in)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("after %d bytes: %v", len(rest), err)
	}
	return rest
}

// settled returns when the server's system has all that p wrote, and the
// server has read it: it answers another connection after that.
func (p *peer) settled(other *peer) {
	p.t.Helper()
	p.acknowledged()
	other.send(ws.OpPing, "settled")
	if got := other.next(ws.OpPong); got != "settled" {
		p.t.Fatalf("pong of %q", got)
	}
}

// acknowledged returns when the server's system has all that p wrote.
func (p *peer) acknowledged() {
	p.t.Helper()
	await.True(p.t, "everything is acknowledged", func() (all bool) {
		p.control(func(fd int) error {
			left, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
			all = left == 0
			return err
		})
		return all
	})
}

func (p *peer) control(f func(fd int) error) {
	p.t.Helper()
	raw, err := p.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		p.t.Fatal(err, failed)
	}
}

func masked(op ws.OpCode, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, []byte(payload))))
}
