package natsconn

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestPipeDeadlines: a deadline is kept until a later one is wanted, and ends a write that nobody takes.
func TestPipeDeadlines(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	p := &pipe{Conn: near}
	defer p.Close()
	set := func(d time.Time) {
		t.Helper()
		if err := p.SetWriteDeadline(d); err != nil {
			t.Fatal(err)
		}
	}
	hour := time.Now().Add(time.Hour)
	set(hour)
	set(time.Time{})
	set(hour.Add(deadlineSlack))
	if !p.due.Equal(hour) {
		t.Errorf("the deadline is %s, want it kept at %s", p.due, hour)
	}
	set(hour.Add(deadlineSlack + 1))
	if p.due.Equal(hour) {
		t.Error("the deadline was not moved")
	}
	if err := p.SetDeadline(time.Time{}); err != nil || !p.due.IsZero() {
		t.Errorf("the deadline is %s after it was cleared (%v)", p.due, err)
	}
	set(time.Now().Add(time.Millisecond))
	for range 2 {
		if _, err := p.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write returned %v, want a timeout", err)
		}
	}
	set(time.Now().Add(2 * deadlineSlack)) // nothing is left of the one that has passed
	go func() { _, _ = far.Read(make([]byte, 1)) }()
	if _, err := p.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
