package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// questionsMax is how many questions wait: what comes beyond is dropped,
	// which who asked sees as a gateway that does not answer.
	questionsMax = 64
	// questionTimeout is how long one may take. Whoever asked has given up by
	// then.
	questionTimeout = 5 * time.Second
	// answerSlack is the room that an answer leaves in a message.
	answerSlack = 4 << 10
)

// answerQuestions answers what others ask of the connections here, one
// question after the other, until ctx ends.
func (g *Gateway) answerQuestions(ctx context.Context) error {
	nc := g.deps.NATS.Req
	questions := make(chan *nats.Msg, questionsMax)
	sub, err := nc.ChanSubscribe(subject.GatewayQuestion, questions)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject.GatewayQuestion, err)
	}
	defer sub.Unsubscribe()
	for {
		select {
		case <-ctx.Done():
			return nil
		case msg := <-questions:
			g.answerQuestion(ctx, msg)
		}
	}
}

func (g *Gateway) answerQuestion(ctx context.Context, msg *nats.Msg) {
	var q control.Question
	if err := json.Unmarshal(msg.Data, &q); err != nil {
		g.say(msg, control.Answer{Error: "not a question: " + err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	a, err := g.edge.Inquire(ctx, &q)
	if err != nil {
		g.say(msg, control.Answer{Error: fmt.Sprintf("no answer within %s: %v", questionTimeout, err)})
		return
	}
	for _, part := range parts(a, int(g.deps.NATS.Req.MaxPayload())-answerSlack) {
		g.say(msg, part)
	}
}

func (g *Gateway) say(to *nats.Msg, a control.Answer) {
	a.Node = g.deps.Cluster.Local().Node
	body, err := json.Marshal(a)
	if err == nil {
		err = to.Respond(body)
	}
	if err != nil {
		g.log.Warn("a question about connections was not answered", "err", err)
	}
}

// parts cuts an answer into some that fit into a message each. What is not in
// the list of connections is in the last.
func parts(a control.Answer, bytesMax int) (out []control.Answer) {
	list, from, bytes := a.Connections, 0, 0
	for i := range list {
		size := 1 // a comma
		if body, err := json.Marshal(&list[i]); err == nil {
			size += len(body)
		}
		if bytes += size; bytes > bytesMax && i > from {
			out = append(out, control.Answer{More: true, Connections: list[from:i]})
			from, bytes = i, size
		}
	}
	a.Connections = list[from:]
	return append(out, a)
}
