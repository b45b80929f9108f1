package limit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

const (
	// The key and its answer are the samples of RFC 6455, section 1.3.
	request = "GET /app/k?protocol=7 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	accept = "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

	patience = 30 * time.Second
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// server is Go or C.
type server struct {
	name  string
	start func(ctx context.Context, dir string, flags ...string) (*Server, error)
}

func servers() []server { return []server{{"Go", Go}, {"C", C}} }

func (s server) skip(t *testing.T) {
	t.Helper()
	if _, err := compiler(); s.name == "C" && err != nil {
		t.Skip(err)
	}
}

// starter starts one of the servers until the end of the test.
type starter func(t *testing.T, flags ...string) *Server

// both runs f for each server.
func both(t *testing.T, f func(t *testing.T, start starter)) {
	for _, c := range servers() {
		t.Run(c.name, func(t *testing.T) {
			c.skip(t)
			dir := t.TempDir() // what is built once does not have to be built again
			f(t, func(t *testing.T, flags ...string) *Server {
				t.Helper()
				s, err := c.start(t.Context(), dir, flags...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Stop() }) // tests that want it to live call Stop before
				return s
			})
		})
	}
}

func TestServers(t *testing.T) {
	long := strings.Repeat("0123456789", 6500)
	cases := []struct {
		name string
		test func(t *testing.T, s *Server)
	}{
		{"upgrades with the sample key", func(t *testing.T, s *Server) { join(t, s) }},
		{"upgrades when the request comes in parts", func(t *testing.T, s *Server) {
			other, p := join(t, s), dial(t, s)
			p.write([]byte(request[:100]))
			p.settled(other)
			p.write(append([]byte(request[100:]), masked(ws.OpPing, "early")...))
			p.established()
			if got := p.next(ws.OpPong); got != "early" {
				t.Errorf("pong of %q", got)
			}
		}},
		{"refuses a request without a key", func(t *testing.T, s *Server) {
			p := dial(t, s)
			p.write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
			if got := p.ended(); !bytes.HasPrefix(got, []byte("HTTP/1.1 400 ")) || !bytes.Contains(got, []byte("Sec-WebSocket-Key")) {
				t.Errorf("the answer is %q", got)
			}
		}},
		{"drops who asks for too long", func(t *testing.T, s *Server) {
			p := dial(t, s)
			_, _ = p.Write(bytes.Repeat([]byte("x"), 256<<10)) // it may be cut off before
			if got := p.ended(); len(got) > 0 {
				t.Errorf("the answer is %q", got)
			}
		}},
		{"answers subscriptions", func(t *testing.T, s *Server) {
			p := join(t, s)
			p.send(ws.OpText, `{"event":"pusher:subscribe","data":{"channel":"news"}}`)
			if got := p.next(ws.OpText); !strings.Contains(got, ":subscription_succeeded") {
				t.Errorf("the answer is %q", got)
			}
		}},
		{"sends a publication to everybody", func(t *testing.T, s *Server) {
			all := []*peer{join(t, s), join(t, s), join(t, s)}
			dial(t, s) // did not ask for anything and gets nothing
			for _, text := range []string{"one", strings.Repeat("y", 125), strings.Repeat("z", 126), long, ""} {
				all[1].send(ws.OpText, "P"+text)
				for _, p := range all {
					p.want(text)
				}
			}
		}},
		{"joins the publications of a turn", joins},
		{"answers pings", func(t *testing.T, s *Server) {
			p := join(t, s)
			for _, payload := range []string{"", "hello", strings.Repeat("p", 125)} {
				p.send(ws.OpPong, "nobody asked")
				p.send(ws.OpPing, payload)
				if got := p.next(ws.OpPong); got != payload {
					t.Errorf("pong of %q, want %q", got, payload)
				}
			}
		}},
		{"waits for the rest of a frame", func(t *testing.T, s *Server) {
			other, p := join(t, s), join(t, s)
			b := append(masked(ws.OpText, "P"+long), masked(ws.OpText, "Psecond")...)
			for _, part := range [][]byte{b[:3], b[3:40], b[40:30_000]} {
				p.write(part)
				p.settled(other)
			}
			p.write(b[30_000:])
			p.want(long, "second")
			other.want(long, "second")
		}},
		{"closes when it is asked to", func(t *testing.T, s *Server) {
			other, p := join(t, s), join(t, s)
			p.send(ws.OpClose, "\x03\xe8bye")
			if got := p.next(ws.OpClose); got != "\x03\xe8bye" {
				t.Errorf("close frame with %q", got)
			}
			if got := p.ended(); len(got) > 0 {
				t.Errorf("%q after the close frame", got)
			}
			other.send(ws.OpText, "Pon")
			other.want("on")
		}},
		{"drops who sends what is not understood", func(t *testing.T, s *Server) {
			other := join(t, s)
			for _, b := range [][]byte{
				masked(ws.OpBinary, "b"), masked(ws.OpText, strings.Repeat("t", 1<<16)),
				ws.MustCompileFrame(ws.NewTextFrame([]byte("no mask"))),
				ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(ws.OpText, false, []byte("a fragment")))),
			} {
				p := join(t, s)
				_, _ = p.Write(b) // it may be cut off before
				if got := p.ended(); len(got) > 0 {
					t.Errorf("%.10q was answered %q", b, got)
				}
			}
			other.send(ws.OpText, "Pon")
			other.want("on")
		}},
		{"forgets who has gone", func(t *testing.T, s *Server) {
			all := []*peer{join(t, s), join(t, s), join(t, s), join(t, s)}
			for _, i := range []int{0, 3} { // the first, and the one that takes its place
				before := sockets(t, s)
				if err := all[i].Close(); err != nil {
					t.Fatal(err)
				}
				await.True(t, "its socket is closed", func() bool { return sockets(t, s) == before-1 })
			}
			all[1].send(ws.OpText, "Pon")
			all[1].want("on")
			all[2].want("on")
		}},
	}
	both(t, func(t *testing.T, start starter) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				s := start(t)
				c.test(t, s)
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// joins stops the server while two publish, so that it finds both in one turn.
func joins(t *testing.T, s *Server) {
	a, b, reader := join(t, s), join(t, s), join(t, s)
	before := segments(t, reader)
	signal(t, s, syscall.SIGSTOP)
	await.True(t, "the server is stopped", func() bool { return state(t, s) == 'T' })
	a.write(append(masked(ws.OpText, "Pone"), masked(ws.OpText, "Ptwo")...))
	a.acknowledged()
	b.send(ws.OpText, "Pthree")
	b.acknowledged()
	signal(t, s, syscall.SIGCONT)
	for _, p := range []*peer{a, b, reader} {
		p.want("one", "two", "three")
	}
	if got := segments(t, reader) - before; got != 1 {
		t.Errorf("three publications came in %d segments, want 1", got)
	}
}

// segments is how many with data p has got: one of each small send.
func segments(t *testing.T, p *peer) (n uint32) {
	t.Helper()
	p.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = info.Data_segs_in
		}
		return err
	})
	return n
}

func signal(t *testing.T, s *Server, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(s.PID, signal); err != nil {
		t.Fatal(err)
	}
}

// state is the letter that proc(5) has for the server's process.
func state(t *testing.T, s *Server) byte {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	return stat[bytes.LastIndexByte(stat, ')')+2]
}

// sockets is how many the server has. It has other descriptors that come and go.
func sockets(t *testing.T, s *Server) int {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", s.PID)
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, entry := range list {
		// One that cannot be read has been closed since.
		if to, err := os.Readlink(filepath.Join(folder, entry.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

const block = 32 << 10

// numbered is publication i of the tests with slow readers.
func numbered(i int) string { return fmt.Sprintf("%08d%s", i, strings.Repeat("-", block-8)) }

func TestSlowReaderIsCutOff(t *testing.T) {
	const most = 4096 // publications, far more than the system's buffers hold
	both(t, func(t *testing.T, start starter) {
		s := start(t, "-slow", "1000000")
		slow, publisher, reader := join(t, s), join(t, s), join(t, s)
		before, published := sockets(t, s), 0
		for ; sockets(t, s) == before; published++ {
			if published == most {
				t.Fatalf("a client that did not read %d publications is still there", most)
			}
			publisher.send(ws.OpText, "P"+numbered(published))
			publisher.want(numbered(published))
			reader.want(numbered(published))
		}
		if got := len(slow.ended()); got >= published*block {
			t.Errorf("the slow reader got %d bytes, of %d publications", got, published)
		}
		publisher.send(ws.OpText, "Pon")
		reader.want("on")
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowReaderThatGoesOnMissesNothing(t *testing.T) {
	const (
		behind = 512  // publications, 16 MiB: more than the system's buffers hold
		more   = 1024 // with these, more than the queue holds have passed through it
	)
	both(t, func(t *testing.T, start starter) {
		s := start(t, "-slow", fmt.Sprint(2*behind*block))
		slow, publisher := join(t, s), join(t, s)
		for i := range behind + more {
			publisher.send(ws.OpText, "P"+numbered(i))
			publisher.want(numbered(i))
			if i >= behind {
				slow.want(numbered(i - behind))
			}
		}
		for i := range behind {
			slow.want(numbered(more + i))
		}
		publisher.send(ws.OpText, "Pon")
		slow.want("on")
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowReaderEndsTheMeasurement(t *testing.T) {
	both(t, func(t *testing.T, start starter) {
		s := start(t)
		join(t, s) // does not read
		publisher := join(t, s)
		for err := error(nil); err == nil; { // until the server has ended
			if _, err = publisher.Write(masked(ws.OpText, "P"+numbered(0))); err == nil {
				_, err = publisher.read(ws.OpText)
			}
		}
		if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "clients that do not read") {
			t.Errorf("the server's end: %v", err)
		}
	})
}

func TestPings(t *testing.T) {
	const rounds = 3
	both(t, func(t *testing.T, start starter) {
		s := start(t, "-ping", "1")
		began := time.Now()
		early := dial(t, s) // gets none before it is upgraded
		all := []*peer{join(t, s), join(t, s), join(t, s)}
		for range rounds {
			for _, p := range all {
				if got := p.next(ws.OpPing); got != "" {
					t.Errorf("a ping with %q", got)
				}
				p.send(ws.OpPong, "")
			}
		}
		// A busy machine makes it longer, or a little shorter.
		if took := time.Since(began); took < (rounds-1)*time.Second {
			t.Errorf("%d pings to each of %d connections within %s, want one in a second", rounds, len(all), took)
		}
		before := sockets(t, s)
		if err := all[1].Close(); err != nil {
			t.Fatal(err)
		}
		await.True(t, "its socket is closed", func() bool { return sockets(t, s) == before-1 })
		all[0].next(ws.OpPing)
		all[2].next(ws.OpPing)
		early.write([]byte(request))
		early.established()
		early.next(ws.OpPing)
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestListens(t *testing.T) {
	both(t, func(t *testing.T, start starter) {
		s := start(t, "-listen", "127.0.0.2:0")
		if !strings.HasPrefix(s.Addr, "127.0.0.2:") {
			t.Errorf("it listens on %s", s.Addr)
		}
		join(t, s)
	})
}

func TestFlagsThatAreRefused(t *testing.T) {
	for _, c := range servers() {
		t.Run(c.name, func(t *testing.T) {
			c.skip(t)
			dir := t.TempDir()
			for _, flags := range [][]string{
				{"-listen", "0.0.0.0:0"},
				{"-listen", "127.0.0.1"},
				{"-listen", "localhost:0"},
				{"-listen", "127.0.0.1:x"},
				{"-slow", "much"},
				{"-slow", "-1"},
				{"-ping", "often"},
				{"-ping", "-1"},
				{"-ping", "0.5"},
				{"-ping", "3601"},
				{"-fast"},
				{"fast"},
			} {
				s, err := c.start(t.Context(), dir, flags...)
				if err == nil {
					t.Errorf("%v are accepted (%v)", flags, s.Stop())
				} else if !strings.Contains(err.Error(), "-slow") && !strings.Contains(err.Error(), "want") {
					t.Errorf("%v: the error does not say what would be right: %v", flags, err)
				}
			}
		})
	}
}

func TestNoWarnings(t *testing.T) {
	err := compile(t.Context(), filepath.Join(t.TempDir(), "rawloop-c"), "-Wall", "-Wextra", "-Werror")
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestNoCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := C(t.Context(), t.TempDir())
	if !errors.Is(err, ErrNoCompiler) || !strings.Contains(err.Error(), "install") {
		t.Errorf("without a compiler: %v", err)
	}
}
