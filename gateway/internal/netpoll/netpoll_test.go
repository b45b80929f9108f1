package netpoll

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// pollers runs f on every Poller of this system.
func pollers(t *testing.T, f func(t *testing.T, p Poller)) {
	t.Helper()
	system, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Poller{"system": system, "portable": NewPortable()} {
		t.Run(name, func(t *testing.T) {
			f(t, p)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
			p.Wake()
			p.Notify(Event{})
		})
	}
}

func wait(t *testing.T, p Poller, events []Event, timeout time.Duration) []Event {
	t.Helper()
	n, err := p.Wait(events, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return events[:n]
}

// some waits until there is an event: a wait may end without one.
func some(t *testing.T, p Poller, events []Event) []Event {
	t.Helper()
	for {
		if got := wait(t, p, events, -1); len(got) > 0 {
			return got
		}
	}
}

func TestWakeEndsAWait(t *testing.T) {
	pollers(t, func(t *testing.T, p Poller) {
		events := make([]Event, 4)
		p.Wake()
		wait(t, p, events, -1) // the wake-up came before the wait
		var waiting sync.WaitGroup
		waiting.Go(func() { _, _ = p.Wait(make([]Event, 4), -1) })
		p.Wake()
		waiting.Wait()
		if got := wait(t, p, events, 0); len(got) != 0 {
			t.Errorf("a wake-up is an event: %v", got)
		}
		if got := wait(t, p, events, time.Millisecond); len(got) != 0 {
			t.Errorf("events after a timeout: %v", got)
		}
	})
}

func TestNotifiedEventsAllArriveInOrder(t *testing.T) {
	pollers(t, func(t *testing.T, p Poller) {
		const n = 1000
		for i := range int32(n) {
			p.Notify(Event{Slot: i, Gen: 7, Readable: true})
		}
		var got []Event
		for len(got) < n {
			got = append(got, wait(t, p, make([]Event, 8), -1)...)
		}
		for i, ev := range got {
			if ev != (Event{Slot: int32(i), Gen: 7, Readable: true}) {
				t.Fatalf("event %d is %+v", i, ev)
			}
		}
	})
}

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return server, client
}

// started is a pipe on one end of a connection.
func started(t *testing.T, p Poller, outMax int) (*Pipe, net.Conn) {
	t.Helper()
	server, client := pair(t)
	var group sync.WaitGroup
	pipe := NewPipe(server, p, outMax, &group)
	pipe.Start(3, 9)
	t.Cleanup(func() { pipe.Close(); group.Wait() })
	return pipe, client
}

func TestPipeReadsOnlyAfterResume(t *testing.T) {
	pollers(t, func(t *testing.T, p Poller) {
		pipe, client := started(t, p, 1024)
		events := make([]Event, 4)
		buf := make([]byte, 100)
		if _, err := pipe.Recv(buf); err != ErrAgain {
			t.Fatalf("got %v, want ErrAgain", err)
		}
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := some(t, p, events); len(got) != 1 || got[0] != (Event{Slot: 3, Gen: 9, Readable: true}) {
			t.Fatalf("got %+v", got)
		}
		if n, err := pipe.Recv(buf[:2]); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		pipe.Resume() // there is more: reported again
		some(t, p, events)
		if n, err := pipe.Recv(buf); string(buf[:n]) != "llo" || err != nil {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		pipe.Resume()
		_ = client.Close()
		some(t, p, events)
		if _, err := pipe.Recv(buf); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
	})
}

func TestPipeWritesWhatItTookAndReportsRoom(t *testing.T) {
	pollers(t, func(t *testing.T, p Poller) {
		pipe, client := started(t, p, 1000)
		want := bytes.Repeat([]byte("0123456789"), 1_000_000)
		var got []byte
		var reading sync.WaitGroup
		reading.Go(func() { got, _ = io.ReadAll(client) })
		for rest := want; len(rest) > 0; {
			n, err := pipe.Send(rest)
			if err != nil && err != ErrAgain {
				t.Fatal(err)
			}
			rest = rest[n:]
			if len(rest) > 0 {
				if ev := wait(t, p, make([]Event, 1), -1); len(ev) == 1 && !ev[0].Writable {
					t.Fatalf("got %+v", ev)
				}
			}
		}
		pipe.CloseWrite()
		reading.Wait()
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes arrived of %d, or in another order", len(got), len(want))
		}
		if _, err := pipe.Send([]byte("x")); err == nil {
			t.Error("writing after CloseWrite works")
		}
	})
}

func TestDetachedPipeLeavesTheConnectionUsable(t *testing.T) {
	pollers(t, func(t *testing.T, p Poller) {
		pipe, client := started(t, p, 1000)
		if _, err := client.Write([]byte("a")); err != nil {
			t.Fatal(err)
		}
		some(t, p, make([]Event, 1))
		buf := make([]byte, 10)
		if n, err := pipe.Recv(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		conn := pipe.Detach()
		if _, err := client.Write([]byte("b")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); string(buf[:n]) != "b" || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
	})
}
