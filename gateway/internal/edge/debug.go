package edge

import (
	"context"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
)

// Subscribers counts the subscribers of a channel on each loop, for debug
// pages.
func (e *Edge) Subscribers(ctx context.Context, key channel.Key) ([]int, error) {
	counts := make([]int, len(e.handlers))
	err := e.onLoops(ctx, func(h *handler) {
		if ch := h.table.Lookup(key); ch != nil {
			for i := range ch.Groups {
				counts[h.index] += len(ch.Groups[i].Slots)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// ConnInfo describes a connection for debug pages.
type ConnInfo struct {
	SocketID string
	App      string
	User     string
	Dialect  string
	Remote   string
	Loop     int
	// Silent is how long nothing has been received, Pending how many bytes
	// wait to be read by the client.
	Silent  time.Duration
	Pending int
	// Channels with the state of the subscription, the first hundred.
	Channels map[string]string
	Closing  bool
}

const debugChannelsMax = 100

// Describe gives what is known of a connection, nil if it is not here.
func (e *Edge) Describe(ctx context.Context, id string) (*ConnInfo, error) {
	handle, ok := e.resolve(id)
	if !ok {
		return nil, nil
	}
	found := make(chan *ConnInfo, 1)
	h := e.handlers[handle.Loop]
	h.run(func() {
		c := h.loop.Conn(handle)
		if c == nil {
			found <- nil
			return
		}
		cl, _ := c.Data.(*client)
		found <- cl.describe(id)
	})
	select {
	case info := <-found:
		return info, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// describe is nil for a connection that is no client yet.
func (c *client) describe(id string) *ConnInfo {
	if c == nil {
		return nil
	}
	info := &ConnInfo{
		SocketID: id, User: c.user(), Dialect: c.proto().Name(), Remote: c.conn.RemoteAddr(), Loop: c.h.index,
		Silent: time.Duration(c.h.loop.Now() - c.conn.LastInput()), Pending: c.conn.Pending(),
		Channels: map[string]string{}, Closing: c.closing,
	}
	if a := c.app(); a != nil {
		info.App = a.ID
	}
	for name, state := range c.sess.Channels() {
		if len(info.Channels) == debugChannelsMax {
			break
		}
		info.Channels[name] = state.String()
	}
	return info
}
