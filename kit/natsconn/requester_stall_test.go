package natsconn_test

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natsconn"
)

// stallingServer speaks as much NATS as a client needs to connect, and reads nothing after the first subscription.
func stallingServer(t *testing.T) (url string, hangUp func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		accepted <- conn
		conn.Write([]byte(`INFO {"server_id":"stall","version":"2.15.0","headers":true,"max_payload":1048576}` + "\r\n"))
		lines := bufio.NewScanner(conn)
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "SUB ") {
			if lines.Text() == "PING" {
				conn.Write([]byte("PONG\r\n"))
			}
		}
	}()
	return "nats://" + ln.Addr().String(), func() {
		ln.Close()
		for conn := range accepted {
			conn.Close()
		}
	}
}

// TestAskNeverBlocks asks far more than the sockets' buffers hold: the writer stands still, Ask and the deadlines don't.
func TestAskNeverBlocks(t *testing.T) {
	url, hangUp := stallingServer(t)
	nc, err := nats.Connect(url, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	r, stop := startRequester(t, nc, 512)
	const asks = 2000
	data := make([]byte, 512<<10)
	got := make(chan error, asks)
	for range asks {
		r.Ask("anything", data, 100*time.Millisecond, func(_ []byte, err error) { got <- err })
	}
	for range asks {
		if err := wait(t, got); !errors.Is(err, natsconn.ErrTimeout) && !errors.Is(err, natsconn.ErrBusy) {
			t.Fatalf("got %v, want ErrTimeout or ErrBusy", err)
		}
	}
	hangUp()
	stop()
	nc.Close()
}
