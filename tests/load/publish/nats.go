package publish

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/subject"
)

// NATS publishes by requests on car.pub.<app>, each with up to Batch
// publications. It is one lane.
type NATS struct {
	ledger
	conn    *nats.Conn
	subject string
	inbox   string
	batch   int
	window  int
	body    []byte
	flights map[uint64]flight // by request
	request uint64

	mu sync.Mutex
	// guarded by mu
	replies []reply
}

type flight struct {
	size int
	sent int64
}

type reply struct {
	request uint64
	failure string
}

// NewNATS connects to a NATS server that the routers use. A request carries
// up to batch publications, up to window requests are unanswered.
func NewNATS(url, app string, m Message, batch, window int, now func() int64) (*NATS, error) {
	l, err := newLedger(1, m, now)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(url, nats.Name("carillon bench"), nats.MaxReconnects(0))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	n := &NATS{
		ledger: l, conn: conn, subject: subject.Publish(app), inbox: nats.NewInbox() + ".",
		batch: max(batch, 1), window: window, flights: map[uint64]flight{},
	}
	if _, err := conn.Subscribe(n.inbox+"*", n.reply); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to answers: %w", err)
	}
	return n, nil
}

// reply runs on the connection's goroutine.
func (n *NATS) reply(msg *nats.Msg) {
	r := reply{}
	if _, err := fmt.Sscanf(strings.TrimPrefix(msg.Subject, n.inbox), "%d", &r.request); err != nil {
		return // not ours
	}
	switch {
	case msg.Header.Get("Status") == "503":
		r.failure = "no router takes publications on " + n.subject
	case bytes.Contains(msg.Data, []byte(`"error"`)):
		r.failure = string(msg.Data)
	}
	n.mu.Lock()
	n.replies = append(n.replies, r)
	n.mu.Unlock()
}

// FD implements Publisher.
func (n *NATS) FD() int { return -1 }

// Ready implements Publisher.
func (n *NATS) Ready() bool { return len(n.flights) < n.window }

// Publish implements Publisher.
func (n *NATS) Publish(at int64, channels ...int) error {
	for len(channels) > 0 {
		size := min(n.batch, len(channels))
		if err := n.send(at, channels[:size]); err != nil {
			return err
		}
		channels = channels[size:]
	}
	return nil
}

func (n *NATS) send(at int64, channels []int) error {
	n.body = append(n.body[:0], `{"batch":[`...)
	for i, ch := range channels {
		if i > 0 {
			n.body = append(n.body, ',')
		}
		n.body = append(n.body, `{"event":"`+n.message.Event+`","channel":"`+n.message.Name(ch)+`","data":"`...)
		n.body = append(n.appendData(n.body, 0, ch, at), `"}`...)
	}
	n.body = append(n.body, "]}"...)
	n.request++
	n.flights[n.request] = flight{len(channels), n.now()}
	if err := n.conn.PublishRequest(n.subject, fmt.Sprint(n.inbox, n.request), n.body); err != nil {
		return fmt.Errorf("publish over NATS: %w", err)
	}
	return nil
}

// Poll implements Publisher.
func (n *NATS) Poll() error {
	n.mu.Lock()
	replies := n.replies
	n.replies = nil
	n.mu.Unlock()
	for _, r := range replies {
		f, ok := n.flights[r.request]
		if !ok {
			continue
		}
		delete(n.flights, r.request)
		n.answered(f.size, f.sent, r.failure)
	}
	if n.conn.IsClosed() {
		return fmt.Errorf("the NATS connection is closed: %w", n.conn.LastError())
	}
	return nil
}

// Close implements Publisher.
func (n *NATS) Close() error {
	err := n.conn.FlushTimeout(time.Second)
	n.conn.Close()
	return err
}
