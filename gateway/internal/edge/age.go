package edge

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// Ages bound how long connections live: those that have reached their age are
// asked to reconnect, so that a node that has joined gets its share.
type Ages struct {
	// Max is the greatest age, 0 is none.
	Max time.Duration
	// Jitter, 0 to 1, is the share of Max by which ages differ, evenly: what
	// came at once goes a few at a time.
	Jitter float64
}

// of is the age that a connection may reach. It follows from the connection's
// name, so that nothing has to be kept for it.
func (a Ages) of(node uint32, h loop.Handle) time.Duration {
	share := float64(scatter(uint64(node)<<32^packed(h))>>11) / (1 << 53)
	return a.Max - time.Duration(float64(a.Max)*a.Jitter*share)
}

// scatter is the finalizer of SplitMix64: numbers that differ in one bit get
// results that have nothing in common (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// aged closes the client when it has reached its age, and otherwise returns
// when it will, 0 for never.
func (c *client) aged(now int64) (at int64) {
	if at = c.oldest(); at > 0 && now >= at {
		c.sess.Shut(dialect.MaxAge)
	}
	return at
}

// oldest is when the client reaches its age, 0 for never.
func (c *client) oldest() int64 {
	cfg := &c.h.edge.cfg
	if cfg.Ages.Max <= 0 {
		return 0
	}
	return c.sess.Opened() + int64(cfg.Ages.of(cfg.NodeNumber, c.conn.Handle()))
}
