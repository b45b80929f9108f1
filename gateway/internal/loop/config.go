package loop

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config is what a loop needs to know. The zero value of a field means its
// default.
type Config struct {
	// Index is the loop's number in the node and in its handles.
	Index int
	// ReadBuffer is the size in bytes of the one buffer that all connections
	// of the loop are read into (64 KiB).
	ReadBuffer int
	// SendBufferBytes caps what the kernel buffers for a connection that
	// reads slowly (64 KiB; the kernel's own default lets it grow to 4 MiB).
	SendBufferBytes int
	// OutboxBytesMax and OutboxAgeMax are how much (1 MiB) and how long (10 s)
	// a connection may leave unread before it is closed as slow.
	OutboxBytesMax int
	OutboxAgeMax   time.Duration
	// MemoryMax is what the loop's connections may take: the bytes of their
	// outboxes, and 1 KiB for each, with TLS 33 KiB; 0 is no limit. From 7/8 of it on those that
	// read slowest are closed, largest outbox first, until 6/8 are left; see
	// also Loop.Full.
	MemoryMax int64
	// SlowCode and SlowReason close a slow connection (1008, "slow"), unless
	// the handler implements SlowCloser.
	SlowCode   int
	SlowReason string
	// HeadTimeout is the time from accept to a complete request head, and from
	// there to a complete body (10 s).
	HeadTimeout time.Duration
	// IdleTimeout is how long a connection whose request was answered may take
	// until the next request head is complete (60 s).
	IdleTimeout time.Duration
	// AnswerTimeout is how long the handler may take to answer a request before
	// the loop answers 503 (60 s).
	AnswerTimeout time.Duration
	// CloseTimeout is how long a close waits for the peer (5 s).
	CloseTimeout time.Duration
	// MessageBytesMax limits a client's message (64 KiB); larger ones are
	// closed with 1009.
	MessageBytesMax int
	// MailboxMax is how many items the mailbox takes before Post refuses
	// (65,536).
	MailboxMax int
	// ConnectionsMax limits the loop's connections (1,000,000). Connections
	// above it are answered 503 with Retry-After.
	ConnectionsMax int
	// MaxSends is how many writes a flush makes before input is polled
	// (1,000).
	MaxSends int
	// MailPerTurn is how many mailbox items a turn takes (4,096).
	MailPerTurn int
	// HandOver takes connections whose verdict is HandOver. Without it they
	// are answered 404.
	HandOver *HandOverListener
	// Log gets handler panics and what the operating system refuses; nil
	// means slog.Default.
	Log *slog.Logger
}

// withDefaults fills the zero fields.
func (c Config) withDefaults() Config {
	setDefault(&c.ReadBuffer, 64<<10)
	setDefault(&c.SendBufferBytes, 64<<10)
	setDefault(&c.OutboxBytesMax, 1<<20)
	setDefault(&c.OutboxAgeMax, 10*time.Second)
	setDefault(&c.SlowCode, 1008)
	setDefault(&c.SlowReason, "slow")
	setDefault(&c.HeadTimeout, 10*time.Second)
	setDefault(&c.IdleTimeout, 60*time.Second)
	setDefault(&c.AnswerTimeout, 60*time.Second)
	setDefault(&c.CloseTimeout, 5*time.Second)
	setDefault(&c.MessageBytesMax, 64<<10)
	setDefault(&c.MailboxMax, 65_536)
	setDefault(&c.ConnectionsMax, 1_000_000)
	setDefault(&c.MaxSends, 1_000)
	setDefault(&c.MailPerTurn, 4_096)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

// Validate says which field is out of range and what would be right. New calls
// it after filling in the defaults.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int
		least int
	}{
		{"Index", c.Index, 0},
		{"ReadBuffer", c.ReadBuffer, 1 << 10},
		{"SendBufferBytes", c.SendBufferBytes, 4 << 10},
		{"OutboxBytesMax", c.OutboxBytesMax, 1},
		{"MessageBytesMax", c.MessageBytesMax, 1},
		{"MailboxMax", c.MailboxMax, 1},
		{"ConnectionsMax", c.ConnectionsMax, 1},
		{"MaxSends", c.MaxSends, 1},
		{"MailPerTurn", c.MailPerTurn, 1},
	} {
		if f.value < f.least {
			return fmt.Errorf("loop: %s is %d, must be at least %d", f.name, f.value, f.least)
		}
	}
	if c.MemoryMax < 0 {
		return fmt.Errorf("loop: MemoryMax is %d, must not be negative", c.MemoryMax)
	}
	if c.OutboxAgeMax < 0 || c.HeadTimeout < 0 || c.IdleTimeout < 0 || c.AnswerTimeout < 0 || c.CloseTimeout < 0 {
		return errors.New("loop: OutboxAgeMax, HeadTimeout, IdleTimeout, AnswerTimeout and CloseTimeout must be positive")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
