// Package fleet speaks to all gateways at once: it tells them what to do, and
// asks them what they have. It owns the deadlines and the merging of their
// answers; it knows no API's format.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/subject"
)

// ErrUnreachable means that gateways may not have heard, or have not answered;
// a repeat may reach them.
var ErrUnreachable = errors.New("the gateways can't be reached now, try again")

const (
	// answersMax is how many messages of gateways wait to be read.
	answersMax = 1 << 10
	// lookAround is how often it is checked whether a gateway that has not
	// answered still lives.
	lookAround = 100 * time.Millisecond
)

// Config of a Fleet.
type Config struct {
	// TellTimeout is how long a command may take to leave.
	TellTimeout time.Duration
	// AskTimeout is how long the answers to a question may take.
	AskTimeout time.Duration
	// ListMax is how many connections one answer lists.
	ListMax int
}

// Fleet is the gateways. It may be used by any goroutine.
type Fleet struct {
	// immutable after New
	nc      *nats.Conn
	members cluster.Membership
	cfg     Config
}

// New returns the fleet of the members with the role gateway.
func New(nc *nats.Conn, members cluster.Membership, cfg Config) *Fleet {
	return &Fleet{nc: nc, members: members, cfg: cfg}
}

// Tell sends a command to every gateway, and returns when NATS has it.
func (f *Fleet) Tell(ctx context.Context, cmd control.Command) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.TellTimeout)
	defer cancel()
	return f.send(ctx, subject.GatewayControl, "", cmd)
}

// send publishes v as JSON. Only a flush shows that the server has it: a
// publish alone may sit in the reconnect buffer.
func (f *Fleet) send(ctx context.Context, to, reply string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode for %s: %w", to, err)
	}
	err = f.nc.PublishMsg(&nats.Msg{Subject: to, Reply: reply, Data: body})
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%d bytes are %w", len(body), occupancy.ErrTooLarge)
	case err != nil:
		return fmt.Errorf("send to %s: %w: %w", to, err, ErrUnreachable)
	}
	if err := f.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("send to %s: %w: %w", to, err, ErrUnreachable)
	}
	return nil
}

// Connections lists the connections of an app that are selected, sorted by
// client; cut says that there are more than a list holds. The list is of all
// gateways, or there is an error.
func (f *Fleet) Connections(ctx context.Context, app string, of control.Select) (list []control.Connection, cut bool, err error) {
	answers, err := f.ask(ctx, control.Question{App: app, Connections: &of, Limit: f.cfg.ListMax})
	if err != nil {
		return nil, false, err
	}
	for _, a := range answers {
		list, cut = append(list, a.Connections...), cut || a.Cut
	}
	slices.SortFunc(list, func(a, b control.Connection) int { return strings.Compare(a.Client, b.Client) })
	if len(list) > f.cfg.ListMax {
		list, cut = list[:f.cfg.ListMax], true
	}
	return list, cut, nil
}

// Node is a member of the cluster. Numbers are nil for one that is no gateway.
type Node struct {
	cluster.Member
	Numbers *control.Numbers
}

// Started is when this run of the node began, as its incarnation says; zero if
// that says nothing.
func (n *Node) Started() time.Time {
	const digits = 16 // see cluster.NewIncarnation
	if len(n.Incarnation) < digits {
		return time.Time{}
	}
	micros, err := strconv.ParseInt(n.Incarnation[:digits], 16, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}

// Nodes lists the members of the cluster with what their gateways have of an
// app, sorted by name.
func (f *Fleet) Nodes(ctx context.Context, app string) ([]Node, error) {
	answers, err := f.ask(ctx, control.Question{App: app, Numbers: true})
	if err != nil {
		return nil, err
	}
	var nodes []Node
	for _, m := range f.members.Members() {
		n := Node{Member: m}
		for _, a := range answers {
			if a.Node == m.Node && a.Numbers != nil {
				n.Numbers = a.Numbers
			}
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// ask puts a question to all gateways and waits until those have answered that
// are still alive.
func (f *Fleet) ask(ctx context.Context, q control.Question) ([]control.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.AskTimeout)
	defer cancel()
	inbox := f.nc.NewInbox()
	messages := make(chan *nats.Msg, answersMax)
	sub, err := f.nc.ChanSubscribe(inbox, messages)
	if err != nil {
		return nil, fmt.Errorf("await answers of the gateways: %w: %w", err, ErrUnreachable)
	}
	defer sub.Unsubscribe()
	if err := f.send(ctx, subject.GatewayQuestion, inbox, q); err != nil {
		return nil, err
	}
	return f.collect(ctx, messages)
}

func (f *Fleet) collect(ctx context.Context, messages <-chan *nats.Msg) (answers []control.Answer, err error) {
	done := map[string]bool{}
	look := time.NewTicker(lookAround)
	defer look.Stop()
	for {
		missing := f.missing(done)
		if len(missing) == 0 {
			return answers, nil
		}
		select {
		case msg := <-messages:
			a, ok, err := read(msg)
			if err != nil {
				return nil, err
			}
			if ok {
				answers = append(answers, a)
				done[a.Node] = done[a.Node] || !a.More
			}
		case <-look.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer of gateway %s: %w", strings.Join(missing, ", "), ErrUnreachable)
		}
	}
}

// read reads an answer; ok is false for "no responders", which says nothing
// that the membership will not say soon.
func read(msg *nats.Msg) (a control.Answer, ok bool, err error) {
	if len(msg.Data) == 0 {
		return a, false, nil
	}
	if err := json.Unmarshal(msg.Data, &a); err != nil {
		return a, false, fmt.Errorf("read the answer of a gateway: %w", err)
	}
	if a.Error != "" {
		return a, false, fmt.Errorf("gateway %s: %s: %w", a.Node, a.Error, ErrUnreachable)
	}
	return a, true, nil
}

// missing are the gateways that live and are not done.
func (f *Fleet) missing(done map[string]bool) (nodes []string) {
	for _, m := range cluster.Reachable(f.members.Members(), "gateway") {
		if !done[m.Node] {
			nodes = append(nodes, m.Node)
		}
	}
	return nodes
}
