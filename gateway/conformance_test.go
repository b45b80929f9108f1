package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/proto/channel"
)

// conformanceMessageMax is small, so that the cases about the limit are quick.
const conformanceMessageMax = 20_000

// TestRFC6455 runs the whole conformance table against the port of a real
// gateway that speaks the Pusher protocol. That has no echo: where the table
// has a message come back, a ping of the protocol carries the message, in as
// many frames, and its pong must come.
func TestRFC6455(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.MessageBytes = conformanceMessageMax
	w := newWorld(t, cfg, Options{})
	w.makeJournal()
	<-w.gw.feed.Started()
	target := wscase.Target{Addr: w.gw.Addr(), Path: "/app/key?protocol=7", Echo: true, Greets: true}
	cases := append(wscase.Cases(conformanceMessageMax), pusherCases()...)
	ran := 0
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wscase.Timeout)
			defer cancel()
			if c.Echo {
				c = asPusher(t, c)
			}
			if err := target.Run(ctx, &c); err != nil {
				t.Error(err)
			}
			ran++
		})
	}
	if ran != len(cases) || ran < 60 {
		t.Errorf("%d of %d cases ran, want all and at least 60", ran, len(cases))
	}
	w.untilNobody()
}

// untilNobody waits until the gateway counts no connection any more: a refused
// handshake must not count as one for good.
func (w *world) untilNobody() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for {
		s := w.gw.edge.Stats()
		var sockets int64
		for i := range s.Loops {
			sockets += s.Loops[i].Connections
		}
		if s.Connections["1"] == 0 && sockets == 0 {
			return
		}
		// The question takes a turn of each loop: no need to pause.
		if _, err := w.gw.edge.Subscribers(ctx, channel.Key{App: "1", Name: "none"}); err != nil {
			w.t.Fatalf("the app still has %d connections, the loops %d sockets", s.Connections["1"], sockets)
		}
	}
}

const (
	pingHead = `{"event":"pusher:ping","data":"`
	pingTail = `"}`
	pong     = `{"event":"pusher:pong","data":"{}"}`
	notJSON  = `{"event":"pusher:error","data":{"code":null,"message":"the message is not JSON: unexpected end of JSON input"}}`
	noBinary = `{"event":"pusher:error","data":{"code":null,"message":"Not a message of the protocol: a JSON object with an event is expected"}}`
)

// pusherCases are what the table can't have: it knows no messages of ours.
func pusherCases() []wscase.Case {
	text := func(n int) []byte {
		return wscase.Frame(wscase.Fin|wscase.Text, []byte(pingHead+strings.Repeat("x", n-len(pingHead+pingTail))+pingTail))
	}
	return []wscase.Case{
		{Name: "pusher: largest message", Send: [][]byte{text(conformanceMessageMax)}, Want: []wscase.Want{{Op: wscase.Text, Payload: []byte(pong)}}},
		{Name: "pusher: message one byte too large", Send: [][]byte{text(conformanceMessageMax + 1)}, Want: []wscase.Want{{Op: wscase.Close, Code: 1009}}},
	}
}

// frame is one frame that a client sends.
type frame struct {
	ws.Header
	payload []byte
}

// asPusher rewrites a case that needs an echo. A text is put into a ping, its
// frames stay cut where they were; an empty text stays, which is no message of
// the protocol but no reason to close; a binary message is one.
func asPusher(t *testing.T, c wscase.Case) wscase.Case {
	t.Helper()
	frames := parseFrames(t, bytes.Join(c.Send, nil))
	var answers [][]wscase.Want // of the messages, in order
	var open []int              // frames of the message that is not complete
	for i := range frames {
		f := &frames[i]
		if f.OpCode != ws.OpContinuation && f.OpCode != ws.OpText && f.OpCode != ws.OpBinary {
			continue
		}
		if f.OpCode == ws.OpContinuation && len(open) == 0 {
			continue // belongs to nothing: an error of the case
		}
		if open = append(open, i); f.Fin {
			answers = append(answers, intoPing(frames, open))
			open = nil
		}
	}
	c.Send = cutLike(c.Send, frames)
	c.Want = wantAnswers(c.Want, answers)
	return c
}

// intoPing makes a ping of a message that the frames at the places make up,
// and gives what must come back.
func intoPing(frames []frame, at []int) []wscase.Want {
	first, last := &frames[at[0]], &frames[at[len(at)-1]]
	if first.OpCode == ws.OpBinary {
		return []wscase.Want{{Op: wscase.Text, Payload: []byte(noBinary)}, {Op: wscase.Close, Code: 1002}}
	}
	empty := true
	for _, i := range at {
		empty = empty && len(frames[i].payload) == 0
	}
	if empty {
		return []wscase.Want{{Op: wscase.Text, Payload: []byte(notJSON)}}
	}
	first.payload = append([]byte(pingHead), first.payload...)
	last.payload = append(bytes.Clone(last.payload), pingTail...)
	return []wscase.Want{{Op: wscase.Text, Payload: []byte(pong)}}
}

// wantAnswers puts the messages' answers in the places of their echoes. What
// closes the connection is the end.
func wantAnswers(want []wscase.Want, answers [][]wscase.Want) []wscase.Want {
	var out []wscase.Want
	for _, w := range want {
		if w.Op != wscase.Text && w.Op != wscase.Binary {
			out = append(out, w)
			continue
		}
		out = append(out, answers[0]...)
		if answers = answers[1:]; out[len(out)-1].Op == wscase.Close {
			break
		}
	}
	return out
}

// cutLike sends frames in pieces as the case does: frame by frame, in one
// piece, or cut at the same places.
func cutLike(pieces [][]byte, frames []frame) [][]byte {
	var out [][]byte
	for _, f := range frames {
		first := byte(f.OpCode) | f.Rsv<<4
		if f.Fin {
			first |= wscase.Fin
		}
		out = append(out, wscase.Frame(first, f.payload))
	}
	if len(pieces) == len(out) {
		return out
	}
	all, cut := bytes.Join(out, nil), [][]byte(nil)
	for _, p := range pieces[:len(pieces)-1] {
		cut, all = append(cut, all[:len(p)]), all[len(p):]
	}
	return append(cut, all)
}

func parseFrames(t *testing.T, raw []byte) []frame {
	t.Helper()
	var frames []frame
	for in := bytes.NewReader(raw); ; {
		h, err := ws.ReadHeader(in)
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatalf("a case that needs an echo holds a frame that can't be read: %v", err)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			t.Fatalf("a case that needs an echo holds a frame that is cut off: %v", err)
		}
		ws.Cipher(payload, h.Mask, 0)
		frames = append(frames, frame{h, payload})
	}
}
