package publish

// Socket publishes on a client's connection to a server that sends what
// begins with P to everybody (package null). It is one lane, and nothing is
// answered.
type Socket struct {
	ledger
	send func(payload []byte)
	out  []byte
}

// NewSocket returns a publisher that sends text messages by send.
func NewSocket(m Message, now func() int64, send func(payload []byte)) (*Socket, error) {
	l, err := newLedger(1, m, now)
	return &Socket{ledger: l, send: send}, err
}

// Ready implements Publisher.
func (s *Socket) Ready() bool { return true }

// Publish implements Publisher. The message has the shape of the others'.
func (s *Socket) Publish(at int64, channels ...int) error {
	for _, ch := range channels {
		s.out = append(s.out[:0], `P{"event":"`+s.message.Event+`","channel":"`+s.message.Name(ch)+`","data":"`...)
		s.out = append(s.appendData(s.out, 0, ch, at), `"}`...)
		s.send(s.out)
		s.stats.Answered++
	}
	return nil
}

// Poll implements Publisher.
func (s *Socket) Poll() error { return nil }

// FD implements Publisher.
func (s *Socket) FD() int { return -1 }

// Close implements Publisher.
func (s *Socket) Close() error { return nil }
