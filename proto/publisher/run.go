package publisher

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	retryWait     = 20 * time.Millisecond // between attempts while nobody listens
	avoidFor      = 2 * time.Second       // membership has noticed a dead router by then
	repliesMax    = 1 << 10
	payloadSlack  = 4 << 10
	defaultMaxPay = 1 << 20
)

// payloadMax is the largest publication that a request on nc can carry.
func payloadMax(nc *nats.Conn) int64 {
	limit := nc.MaxPayload()
	if limit <= 0 { // never connected yet
		limit = defaultMaxPay
	}
	return limit - payloadSlack
}

// measure asks the connection how much a message may carry.
func (p *Publisher) measure() {
	p.payloadMax.Store(payloadMax(p.nc))
	p.batchBytes.Store(int64(message.BatchBytes(p.nc.MaxPayload())))
}

// Run sends what is published and takes the receipts in. When ctx ends it
// refuses more, waits for the receipts of what was taken, for Timeout at most,
// and returns nil.
func (p *Publisher) Run(ctx context.Context) error {
	replies := make(chan *nats.Msg, repliesMax)
	sub, err := p.nc.ChanSubscribe(p.inbox+".>", replies)
	if err != nil {
		p.refuseAll()
		return fmt.Errorf("subscribe to publish receipts: %w", err)
	}
	defer sub.Unsubscribe()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		timer.Reset(p.untilNext())
		select {
		case <-p.wake:
			p.pumpReady()
		case msg := <-replies:
			p.takeReply(msg)
		case <-timer.C:
			p.tick()
		case <-stop:
			stop = nil
			p.refuseMore()
		}
		if stop == nil && p.idle() {
			return nil
		}
	}
}

// refuseMore closes the lanes. Whoever was quicker is in a queue by now, with
// or without having said so.
func (p *Publisher) refuseMore() {
	for _, l := range p.lanes {
		l.close()
		if l.flight == nil {
			p.pump(l)
		}
	}
}

// refuseAll closes the lanes without sending anything.
func (p *Publisher) refuseAll() {
	for _, l := range p.lanes {
		l.close()
		for l.flight = l.next(); l.flight != nil; l.flight = l.next() {
			p.settle(l, nil)
		}
	}
}

func (p *Publisher) idle() bool {
	for _, l := range p.lanes {
		if l.flight != nil {
			return false
		}
	}
	return true
}

// pumpReady starts the lanes that got their first publication.
func (p *Publisher) pumpReady() {
	p.mu.Lock()
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, l := range ready {
		if l.flight == nil {
			p.pump(l)
		}
	}
}

// pump sends the lane's next batch that is not too late.
func (p *Publisher) pump(l *lane) {
	for {
		l.flight = l.next()
		if l.flight == nil {
			return
		}
		if p.now().Before(l.flight.deadline) {
			p.send(l)
			return
		}
		p.settle(l, nil)
	}
}

// send makes one attempt; when it can't leave, retryAt says when the next is
// due.
func (p *Publisher) send(l *lane) {
	now := p.now()
	l.node = p.preferred(l, now)
	l.attempt++
	l.retryAt = time.Time{}
	to := subject.AnyRouterPublish
	if l.node != "" {
		to = subject.RouterPublish(l.node)
	}
	reply := p.inbox + "." + strconv.Itoa(l.index) + "." + strconv.FormatUint(l.attempt, 36)
	// While the connection is away nats.go would keep the request and send it
	// long after its deadline.
	if !p.nc.IsConnected() || p.nc.PublishRequest(to, reply, l.flight.Bytes()) != nil {
		l.retryAt = now.Add(retryWait)
	}
}

// preferred is the router of the lane's partition, "" for any.
func (p *Publisher) preferred(l *lane, now time.Time) string {
	node := Preferred(p.routers(), l.partition)
	if node == l.avoid && now.Before(l.avoidUntil) {
		return ""
	}
	return node
}

func (p *Publisher) takeReply(msg *nats.Msg) {
	l := p.laneOfReply(msg.Subject)
	if l == nil {
		return // late: its batch has been given up
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		p.nobody(l)
		return
	}
	receipts, err := ParseReply(nil, msg.Data)
	if err != nil || len(receipts) != l.flight.Len() {
		receipts = nil
	}
	p.finish(l, receipts)
}

// nobody handles "no responders": the batch was not taken, so another router
// can have it.
func (p *Publisher) nobody(l *lane) {
	if l.node != "" {
		l.avoid, l.avoidUntil = l.node, p.now().Add(avoidFor)
		p.send(l)
		return
	}
	l.attempt++
	l.retryAt = p.now().Add(retryWait)
}

func (p *Publisher) laneOfReply(reply string) *lane {
	index, attempt, ok := strings.Cut(strings.TrimPrefix(reply, p.inbox+"."), ".")
	i, err := strconv.Atoi(index)
	if !ok || err != nil || i < 0 || i >= len(p.lanes) {
		return nil
	}
	l := p.lanes[i]
	n, err := strconv.ParseUint(attempt, 36, 64)
	if err != nil || n != l.attempt || l.flight == nil {
		return nil
	}
	return l
}

// finish gives the receipts out and goes on with the next batch.
func (p *Publisher) finish(l *lane, receipts []Receipt) {
	p.settle(l, receipts)
	p.pump(l)
}

// settle calls the flight's callbacks; without receipts they get
// ErrUnavailable.
func (p *Publisher) settle(l *lane, receipts []Receipt) {
	b := l.flight
	l.flight, l.retryAt = nil, time.Time{}
	l.attempt++
	for i, done := range b.dones {
		if receipts == nil {
			done(Receipt{Err: ErrUnavailable})
			continue
		}
		done(receipts[i])
	}
	l.recycle(b)
}

// untilNext is the time to the nearest deadline or retry.
func (p *Publisher) untilNext() time.Duration {
	var first time.Time
	for _, l := range p.lanes {
		if l.flight == nil {
			continue
		}
		at := l.flight.deadline
		if !l.retryAt.IsZero() && l.retryAt.Before(at) {
			at = l.retryAt
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		return math.MaxInt64
	}
	return max(first.Sub(p.now()), time.Millisecond)
}

// tick handles deadlines and retries that are due.
func (p *Publisher) tick() {
	p.measure()
	now := p.now()
	for _, l := range p.lanes {
		switch {
		case l.flight == nil:
		case !now.Before(l.flight.deadline):
			if l.node != "" {
				l.avoid, l.avoidUntil = l.node, now.Add(avoidFor)
			}
			p.finish(l, nil)
		case !l.retryAt.IsZero() && !now.Before(l.retryAt):
			p.send(l)
		}
	}
}
