package loop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/kit/await"
	gobwas "github.com/gobwas/ws"
)

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"negative mailbox":  {MailboxMax: -1},
		"tiny read buffer":  {ReadBuffer: 10},
		"negative deadline": {HeadTimeout: -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(cfg, Handler[func()](&script{})); err == nil || !strings.Contains(err.Error(), "must be") {
				t.Errorf("got %v, want an error that says what must be", err)
			}
		})
	}
}

func TestRequestSeesTheHeadAndVerdictsAreAnswered(t *testing.T) {
	h := &script{request: func(_ *Conn, head *Head) Verdict {
		switch {
		case head.Path == "/refuse":
			return Verdict{Action: Refuse, Status: 403, Body: "not for " + head.Header("User-Agent")}
		case head.Path == "/http":
			return Verdict{Action: HandOver}
		}
		return Verdict{Action: Upgrade, Protocol: "v2"}
	}}
	s := serve(t, Config{}, h)
	t.Run("refuse", func(t *testing.T) {
		c := s.dial()
		c.write([]byte("GET /refuse HTTP/1.1\r\nHost: h\r\nUser-Agent: test\r\n\r\n"))
		res := c.response()
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != 403 || string(body) != "not for test\n" || err != nil {
			t.Errorf("got %s %q, %v", res.Status, body, err)
		}
		c.wantEnd()
	})
	t.Run("nobody takes HTTP", func(t *testing.T) {
		c := s.dial()
		c.write([]byte("GET /http HTTP/1.1\r\nHost: h\r\n\r\n"))
		if res := c.response(); res.StatusCode != 404 {
			t.Errorf("got %s", res.Status)
		}
	})
	t.Run("subprotocol", func(t *testing.T) {
		c := s.dial()
		c.write([]byte(handshake))
		if got := c.response().Header.Get("Sec-WebSocket-Protocol"); got != "v2" {
			t.Errorf("subprotocol %q", got)
		}
	})
}

func TestOpenMessageClosedInOrder(t *testing.T) {
	var seen journal
	h := &script{
		open:    func(c *Conn) { c.Data = "mine"; seen.add("open %v", strings.HasPrefix(c.RemoteAddr(), "127.0.0.1:")) },
		message: func(c *Conn, text bool, p []byte) { seen.add("message %v %s %v", text, p, c.Data) },
		closed:  func(c *Conn, why Closure) { seen.add("closed %v %d %q %v", why.Cause, why.Code, why.Reason, c.Data) },
	}
	s := serve(t, Config{}, h)
	c := s.open()
	c.write(wscase.Frame(wscase.Fin|wscase.Text, []byte("a")))
	c.write(wscase.Frame(wscase.Fin|wscase.Close, wscase.CloseBody(4000, "bye")))
	c.wantClose(4000, "")
	c.wantEnd()
	await.True(t, "closed was called", func() bool { return seen.n.Load() == 3 })
	want := []string{"open true", "message true a mine", `closed peer 4000 "bye" mine`}
	if got := seen.all(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConnectionsEnd(t *testing.T) {
	var seen journal
	h := &script{
		message: func(c *Conn, _ bool, p []byte) {
			switch string(p) {
			case "close":
				c.SendText([]byte("last words"))
				c.Close(4001, "why not")
				c.SendText([]byte("unheard"))
				c.Close(4002, "again")
			case "abort":
				c.Abort("enough")
			case "panic":
				panic("test")
			}
		},
		closed: func(_ *Conn, why Closure) { seen.add("%v %d %q", why.Cause, why.Code, why.Reason) },
	}
	s := serve(t, Config{Log: quiet()}, h)
	text := func(p string) []byte { return wscase.Frame(wscase.Fin|wscase.Text, []byte(p)) }
	cases := []struct {
		name string
		do   func(c *client)
		want string
	}{
		{"by the handler", func(c *client) {
			c.write(text("close"))
			c.wantText("last words")
			c.wantClose(4001, "why not")
			c.write(wscase.Frame(wscase.Fin|wscase.Close, wscase.CloseBody(4001, "")))
			c.wantEnd()
		}, `closed 4001 "why not"`},
		{"aborted", func(c *client) { c.write(text("abort")); c.wantEnd() }, `aborted 1006 "enough"`},
		{"by a panic", func(c *client) { c.write(text("panic")); c.wantClose(1011, "internal error") }, `panic 1011 "internal error"`},
		{"by the client without a word", func(c *client) { _ = c.conn.Close() }, `lost 1006 "EOF"`},
		{"by a bad frame", func(c *client) { c.write([]byte{0x83, 0x80, 0, 0, 0, 0}); c.wantClose(1002, "use of reserved op code") }, `protocol 1002 "use of reserved op code"`},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.do(s.open())
			await.True(t, "closed was called", func() bool { return seen.n.Load() == int64(i+1) })
			if got := seen.all()[i]; got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if got := s.loops[0].Stats().Panics; got != 1 {
		t.Errorf("%d panics counted", got)
	}
}

func TestAPeerThatIgnoresACloseIsCutOff(t *testing.T) {
	h := &script{open: func(c *Conn) { c.Close(4000, "") }}
	s := serve(t, Config{CloseTimeout: 50 * time.Millisecond}, h)
	c := s.open()
	c.wantClose(4000, "")
	c.wantEnd()
}

func TestSlowHeadsAreCutOff(t *testing.T) {
	s := serve(t, Config{HeadTimeout: 50 * time.Millisecond}, &script{})
	silent, begun := s.dial(), s.dial()
	begun.write([]byte("GET / HT"))
	res := begun.response()
	if _, err := io.Copy(io.Discard, res.Body); res.StatusCode != 408 || err != nil {
		t.Errorf("got %s, %v", res.Status, err)
	}
	begun.wantEnd()
	silent.wantEnd()
	if got := s.loops[0].Stats().HeadTimeouts; got != 2 {
		t.Errorf("%d timeouts counted", got)
	}
}

func TestHandlesOfTheDeadNameNothing(t *testing.T) {
	handles := make(chan Handle, 2)
	h := &script{open: func(c *Conn) { handles <- c.Handle() }}
	s := serve(t, Config{}, h)
	c := s.open()
	first := <-handles
	var alive bool
	s.on(func() {
		alive = s.loops[0].Conn(first) != nil && s.loops[0].ConnAt(first.Slot) == s.loops[0].Conn(first)
	})
	if !alive {
		t.Fatal("handle of a live connection names nothing")
	}
	_ = c.conn.Close()
	await.True(t, "it is gone", func() bool { return s.loops[0].Stats().Connections == 0 })
	s.open()
	second := <-handles
	if first.Slot != second.Slot || first.Gen == second.Gen {
		t.Errorf("handles %+v and %+v: want the same slot and another generation", first, second)
	}
	s.on(func() { alive = s.loops[0].Conn(first) != nil })
	if alive {
		t.Error("handle of a dead connection names its successor")
	}
	s.on(func() {
		alive = s.loops[0].Conn(Handle{Slot: 1 << 20}) != nil || s.loops[0].Conn(Handle{Loop: 1, Slot: second.Slot, Gen: second.Gen}) != nil
	})
	if alive {
		t.Error("handles of no slot, or of another loop, name something")
	}
}

func TestMailArrivesInOrderAndOnce(t *testing.T) {
	s := serve(t, Config{MailPerTurn: 7}, &script{})
	l := s.loops[0]
	const writers, each = 4, 2000
	got := make([][]int, writers)
	done := make(chan struct{}, writers)
	for w := range writers {
		go func() {
			for i := 0; i < each; i += 2 {
				if !l.Post(func() { got[w] = append(got[w], i) }) || !l.PostAll([]func(){func() { got[w] = append(got[w], i+1) }}) {
					t.Error("refused")
				}
			}
			done <- struct{}{}
		}()
	}
	for range writers {
		<-done
	}
	s.on(func() {})
	for w := range writers {
		if len(got[w]) != each || !slices.IsSorted(got[w]) {
			t.Errorf("writer %d: %d items, sorted %v", w, len(got[w]), slices.IsSorted(got[w]))
		}
	}
}

func TestAFullMailboxRefuses(t *testing.T) {
	s := serve(t, Config{MailboxMax: 3}, &script{})
	l := s.loops[0]
	held, release := make(chan struct{}), make(chan struct{})
	l.Post(func() { close(held); <-release })
	<-held
	nothing := func() {}
	if !l.PostAll([]func(){nothing, nothing}) || l.PostAll([]func(){nothing, nothing}) {
		t.Error("2 of 3 fit, 4 of 3 don't")
	}
	if !l.Post(nothing) || l.Post(nothing) || !l.PostAlways(nothing) {
		t.Error("the third fits, the fourth doesn't, an answer always does")
	}
	if st := l.Stats(); st.MailRefused != 3 || st.MailboxDepth != 4 {
		t.Errorf("refused %d, depth %d", st.MailRefused, st.MailboxDepth)
	}
	close(release)
	await.True(t, "the mailbox is empty", func() bool { return l.Stats().MailboxDepth == 0 })
	s.stop()
	s.running.Wait()
	if l.Post(nothing) || l.PostAlways(nothing) {
		t.Error("a loop that has stopped takes mail")
	}
}

func TestTimersFireOnceAndNotEarly(t *testing.T) {
	fired := make(chan int64, 10)
	var due int64
	h := &script{tick: func(c *Conn, now int64) {
		fired <- now - due
		if len(fired) == 1 {
			due = now + int64(150*time.Millisecond)
			c.SetTimer(due)
		}
	}}
	h.open = func(c *Conn) {
		due = h.loop.Now() + int64(20*time.Millisecond)
		c.SetTimer(due + int64(time.Hour)) // moved to earlier
		c.SetTimer(due)
	}
	s := serve(t, Config{}, h)
	s.open()
	await.True(t, "it fired twice", func() bool { return len(fired) == 2 })
	for range 2 {
		if late := <-fired; late < 0 {
			t.Errorf("fired %v early", time.Duration(-late))
		}
	}
	s.on(func() { s.loops[0].ConnAt(0).SetTimer(s.loops[0].Now() + int64(100*time.Millisecond)) })
	s.on(func() { s.loops[0].ConnAt(0).SetTimer(0) })
	s.on(func() { s.loops[0].ConnAt(0).SetTimer(s.loops[0].Now() + int64(50*time.Millisecond)) })
	await.True(t, "the third fired", func() bool { return len(fired) == 1 })
}

// TestOneWritePerTurn: whatever a turn queues for a connection is one system
// call, in the order queued.
func TestOneWritePerTurn(t *testing.T) {
	s := serve(t, Config{}, &script{})
	c := s.open()
	c.write(wscase.Frame(wscase.Fin|wscase.Ping, nil))
	c.frame()
	shared := &Frame{Bytes: ws.AppendText(nil, []byte("shared"))}
	large := &Frame{Bytes: ws.AppendText(nil, bytes.Repeat([]byte("l"), 2*joinBytesMax))}
	queue := map[string]func(c *Conn){
		"one shared":      func(c *Conn) { c.SendShared(shared) },
		"one private":     func(c *Conn) { c.SendText([]byte("private")) },
		"shared, private": func(c *Conn) { c.SendShared(shared); c.SendText([]byte("private")); c.SendShared(shared) },
		"private, shared": func(c *Conn) { c.Send(ws.AppendText(nil, []byte("private"))); c.SendShared(shared) },
		"large":           func(c *Conn) { c.SendText([]byte("private")); c.SendShared(large); c.SendShared(shared) },
	}
	want := map[string][]string{
		"one shared": {"shared"}, "one private": {"private"}, "shared, private": {"shared", "private", "shared"},
		"private, shared": {"private", "shared"}, "large": {"private", string(large.Bytes[4:]), "shared"},
	}
	for name, f := range queue {
		t.Run(name, func(t *testing.T) {
			s.on(func() {}) // now the turns before have been counted
			before := s.loops[0].Stats().Writes
			pending := 0
			s.on(func() { f(s.loops[0].ConnAt(0)); pending = s.loops[0].ConnAt(0).Pending() })
			for _, w := range want[name] {
				c.wantText(w)
				pending -= len(ws.AppendText(nil, []byte(w)))
			}
			await.True(t, "the write was counted", func() bool { return s.loops[0].Stats().Writes == before+1 })
			if pending != 0 {
				t.Errorf("Pending is off by %d", pending)
			}
		})
	}
}

// TestInputIsServedInTheMiddleOfAFlush: a long fan-out is cut into slices,
// and pings that come meanwhile are answered within it.
func TestInputIsServedInTheMiddleOfAFlush(t *testing.T) {
	var slots []int32
	h := &script{open: func(c *Conn) { slots = append(slots, c.Handle().Slot) }}
	s := serve(t, Config{MaxSends: 2}, h)
	clients := make([]*client, 20)
	for i := range clients {
		clients[i] = s.open()
	}
	f := &Frame{Bytes: ws.AppendText(nil, []byte("fan-out"))}
	s.on(func() {})
	before := s.loops[0].Stats().Slices
	s.on(func() {
		for _, slot := range slots {
			s.loops[0].ConnAt(slot).SendShared(f)
		}
	})
	clients[0].write(wscase.Frame(wscase.Fin|wscase.Ping, nil))
	for _, c := range clients {
		c.wantText("fan-out")
	}
	if op, _ := clients[0].frame(); op != gobwas.OpPong {
		t.Errorf("got %v, want a pong", op)
	}
	await.True(t, "slices were counted", func() bool { return s.loops[0].Stats().Slices == before+9 })
}

func TestAboveConnectionsMaxTheAnswerIs503(t *testing.T) {
	s := serve(t, Config{ConnectionsMax: 2}, &script{})
	first := s.open()
	s.open()
	c := s.dial()
	c.write([]byte(handshake))
	if res := c.response(); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %s %v", res.Status, res.Header)
	}
	_ = first.conn.Close()
	await.True(t, "there is room again", func() bool { return s.loops[0].Stats().Connections == 1 })
	s.open()
}

func TestClosingTheListenerLeavesConnectionsAlone(t *testing.T) {
	s := serve(t, Config{}, &script{})
	c := s.open()
	if err := s.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.listener.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	c.write(wscase.Frame(wscase.Fin|wscase.Text, []byte("still here")))
	c.wantText("still here")
}

func TestStoppingSaysGoodbye(t *testing.T) {
	var seen journal
	h := &script{closed: func(_ *Conn, why Closure) { seen.add("%v", why.Cause) }}
	s := serve(t, Config{}, h)
	c := s.open()
	s.stop()
	c.wantClose(1001, "")
	c.wantEnd()
	s.running.Wait()
	if got := seen.all(); !slices.Equal(got, []string{"shutdown"}) {
		t.Errorf("got %v", got)
	}
}

func TestConnectionsGoToTheLeastLoadedLoop(t *testing.T) {
	s := serveAll(t, Config{}, listenPlain, &script{}, &script{}, &script{})
	for range 30 {
		s.open()
	}
	for i, l := range s.loops {
		if n := l.Stats().Connections; n != 10 {
			t.Errorf("loop %d has %d of 30 connections", i, n)
		}
	}
}

func TestHandOverToNetHTTP(t *testing.T) {
	run := func(t *testing.T, start func(testing.TB, Config, *script) *server) {
		hand := NewHandOverListener(nil, 2)
		h := &script{request: func(_ *Conn, _ *Head) Verdict { return Verdict{Action: HandOver} }}
		s := start(t, Config{HandOver: hand}, h)
		echo := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", r.URL.Path, body)
		})}
		served := make(chan error, 1)
		go func() { served <- echo.Serve(hand) }()
		t.Cleanup(func() {
			_ = echo.Shutdown(context.Background())
			if err := <-served; err != http.ErrServerClosed {
				t.Errorf("Serve: %v", err)
			}
		})
		c := s.dial()
		// Two requests at once, one behind, on one kept-alive connection.
		c.write([]byte("\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n2"))
		for _, want := range []string{"/a 1", "/b 2", "/c "} {
			if want == "/c " {
				c.write([]byte("GET /c HTTP/1.1\r\nHost: h\r\n\r\n"))
			}
			body, err := io.ReadAll(c.response().Body)
			if string(body) != want || err != nil {
				t.Fatalf("got %q, %v, want %q", body, err, want)
			}
		}
		// net/http may have answered before the loop has counted.
		await.True(t, "it is handed over and off the loop", func() bool {
			st := s.loops[0].Stats()
			return st.HandedOver == 1 && st.Connections == 0
		})
	}
	t.Run("system", func(t *testing.T) { run(t, serve) })
	t.Run("portable", func(t *testing.T) { run(t, portable) })
}

func TestHandOverIsBounded(t *testing.T) {
	hand := NewHandOverListener(nil, 2)
	h := &script{request: func(_ *Conn, _ *Head) Verdict { return Verdict{Action: HandOver} }}
	s := serve(t, Config{HandOver: hand}, h)
	request := []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	first, second, third := s.dial(), s.dial(), s.dial()
	first.write(request)
	second.write(request)
	await.True(t, "two wait", func() bool { return s.loops[0].Stats().HandedOver == 2 })
	third.write(request)
	if res := third.response(); res.StatusCode != 503 {
		t.Errorf("got %s", res.Status)
	}
	if err := hand.Close(); err != nil {
		t.Fatal(err)
	}
	first.wantEnd()
	second.wantEnd()
	if _, err := hand.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
}
