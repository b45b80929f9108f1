// Package occupancy asks the owners of presence shards who is where, and the routers what a channel's last value is. It owns the
// deadlines, the retries and the merging of many shards; it knows no API's format.
package occupancy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// ErrUnavailable means that nobody answers for the channel now; a repeat may find somebody.
var ErrUnavailable = errors.New("occupancy: no node answers for the channel now, try again")

// ErrTooLarge means that what is asked or told is more than a message of NATS carries; a repeat won't help.
var ErrTooLarge = errors.New("more than a message of NATS carries (max_payload)")

// retries are the waits after "nobody listens there": long enough for ownership to move when a node ends in good order.
var retries = [...]time.Duration{25 * time.Millisecond, 75 * time.Millisecond, 150 * time.Millisecond}

// asksMax bounds the requests under way for one read.
const asksMax = 16

// Config of a Reader.
type Config struct {
	Partitions int           // of the cluster
	Timeout    time.Duration // of one read
	ListMax    int           // channels in one list; more are cut off and the list is marked incomplete
}

// Reader reads over NATS. It may be used by any goroutine.
type Reader struct {
	// immutable after New
	nc    *nats.Conn
	cfg   Config
	marks []mark // by partition
}

// New returns a reader that asks over nc.
func New(nc *nats.Conn, cfg Config) *Reader {
	return &Reader{nc: nc, cfg: cfg, marks: make([]mark, cfg.Partitions)}
}

// Channel reads one channel's counts, and its members if asked to. The info of a channel without subscribers is zero. incomplete
// says that not every gateway has reported yet.
func (r *Reader) Channel(ctx context.Context, app, name string, members bool) (info presence.ChannelInfo, incomplete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.channel(ctx, app, name, members)
}

func (r *Reader) channel(ctx context.Context, app, name string, members bool) (info presence.ChannelInfo, incomplete bool, err error) {
	shard := channel.Key{App: app, Name: name}.Shard(subject.PresenceShards)
	q := presence.Query{App: app, Channel: name, Members: members}
	info = presence.ChannelInfo{Name: name}
	for {
		answer, err := r.query(ctx, shard, q)
		if err != nil {
			return presence.ChannelInfo{}, false, err
		}
		incomplete = incomplete || answer.Incomplete
		i := slices.IndexFunc(answer.Channels, func(c presence.ChannelInfo) bool { return c.Name == name })
		if i < 0 {
			return info, incomplete, nil
		}
		page := answer.Channels[i]
		page.Members = append(info.Members, page.Members...)
		info = page
		if !answer.More || len(info.Members) == 0 {
			return info, incomplete, nil
		}
		q.After = info.Members[len(info.Members)-1].ID
	}
}

// Channels reads the counts of several channels, in order. A channel whose owner doesn't answer makes the whole read fail.
func (r *Reader) Channels(ctx context.Context, app string, names []string) (infos []presence.ChannelInfo, incomplete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	infos = make([]presence.ChannelInfo, len(names))
	partial := make([]bool, len(names))
	err = each(len(names), func(i int) error {
		var err error
		infos[i], partial[i], err = r.channel(ctx, app, names[i], false)
		return err
	})
	return infos, slices.Contains(partial, true), err
}

// ListQuery is a page of a list of occupied channels.
type ListQuery struct {
	Prefix string
	// After is the name behind which the page begins, Limit how many channels
	// it has at most.
	After string
	Limit int
	// Keep says of a name whether it is listed; nil lists all.
	Keep func(name string) bool
}

// Page reads a page of the occupied channels, sorted by name, those that begin with # among them, internal ones not. more says that
// another page follows.
func (r *Reader) Page(ctx context.Context, app string, q ListQuery) (infos []presence.ChannelInfo, more, incomplete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	lists := make([][]presence.ChannelInfo, subject.PresenceShards)
	partial := make([]bool, len(lists))
	err = each(len(lists), func(shard int) error {
		var err error
		lists[shard], partial[shard], err = r.pageOfShard(ctx, shard, app, &q)
		return err
	})
	if err != nil {
		return nil, false, false, err
	}
	infos = slices.Concat(lists...)
	slices.SortFunc(infos, func(a, b presence.ChannelInfo) int { return strings.Compare(a.Name, b.Name) })
	if len(infos) > q.Limit {
		infos, more = infos[:q.Limit], true
	}
	return infos, more, slices.Contains(partial, true), nil
}

// pageOfShard reads one channel more than the page has: they may all be of this shard.
func (r *Reader) pageOfShard(ctx context.Context, shard int, app string, q *ListQuery) (infos []presence.ChannelInfo, partial bool, err error) {
	ask := presence.Query{App: app, All: true, Prefix: q.Prefix, Hash: true, After: q.After, Limit: q.Limit + 1}
	for {
		answer, err := r.query(ctx, shard, ask)
		if err != nil {
			return nil, false, err
		}
		partial = partial || answer.Incomplete
		for _, info := range answer.Channels {
			if !strings.HasPrefix(info.Name, channel.OnlinePrefix) && (q.Keep == nil || q.Keep(info.Name)) {
				infos = append(infos, info)
			}
		}
		if !answer.More || len(answer.Channels) == 0 || len(infos) > q.Limit {
			return infos, partial, nil
		}
		ask.After = answer.Channels[len(answer.Channels)-1].Name
	}
}

// List reads the occupied channels whose names begin with prefix, sorted by name: all shards are asked. Internal channels are
// left out; other names that begin with # are listed only for a prefix that does. A list over the limit is cut off and incomplete.
func (r *Reader) List(ctx context.Context, app, prefix string) (infos []presence.ChannelInfo, incomplete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	lists := make([][]presence.ChannelInfo, subject.PresenceShards)
	partial := make([]bool, len(lists))
	var total atomic.Int64
	err = each(len(lists), func(shard int) error {
		var err error
		lists[shard], partial[shard], err = r.listShard(ctx, shard, presence.Query{App: app, All: true, Prefix: prefix}, &total)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	infos = slices.Concat(lists...)
	slices.SortFunc(infos, func(a, b presence.ChannelInfo) int { return strings.Compare(a.Name, b.Name) })
	incomplete = slices.Contains(partial, true)
	if len(infos) > r.cfg.ListMax {
		infos, incomplete = infos[:r.cfg.ListMax], true
	}
	return infos, incomplete, nil
}

// listShard reads a shard page by page. total counts the channels of all shards: at the limit no more pages are asked for.
func (r *Reader) listShard(ctx context.Context, shard int, q presence.Query, total *atomic.Int64) (infos []presence.ChannelInfo, partial bool, err error) {
	for {
		answer, err := r.query(ctx, shard, q)
		if err != nil {
			return nil, false, err
		}
		partial = partial || answer.Incomplete
		for _, info := range answer.Channels {
			if listed(info.Name, q.Prefix) {
				infos = append(infos, info)
			}
		}
		if !answer.More || len(answer.Channels) == 0 {
			return infos, partial, nil
		}
		if total.Add(int64(len(answer.Channels))) > int64(r.cfg.ListMax) {
			return infos, true, nil
		}
		q.After = answer.Channels[len(answer.Channels)-1].Name
	}
}

func listed(name, prefix string) bool {
	if strings.HasPrefix(name, channel.OnlinePrefix) || !strings.HasPrefix(name, prefix) {
		return false
	}
	return !strings.HasPrefix(name, "#") || strings.HasPrefix(prefix, "#")
}

// Cached is the last value of a channel.
type Cached struct {
	Data []byte
	// TTL is what is left of its life in seconds.
	TTL int
}

// Cached reads the last value of a channel; nil if there is none.
func (r *Reader) Cached(ctx context.Context, app, name string) (*Cached, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	partition := channel.Key{App: app, Name: name}.Partition(r.cfg.Partitions)
	var reply history.Reply
	if err := r.ask(ctx, subject.History(partition), history.Request{App: app, Channel: name, Cache: true}, &reply); err != nil {
		return nil, err
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("read cached value of %s: %s: %w", name, reply.Error, ErrUnavailable)
	}
	if reply.Cached == nil {
		return nil, nil
	}
	pub, err := message.Parse(reply.Cached.Publication)
	if err != nil {
		return nil, fmt.Errorf("read cached value of %s: %w", name, err)
	}
	return &Cached{Data: pub.Data, TTL: reply.CachedTTL}, nil
}

// query asks the owner of a shard.
func (r *Reader) query(ctx context.Context, shard int, q presence.Query) (presence.Answer, error) {
	var answer presence.Answer
	if err := r.ask(ctx, subject.PresenceQuery(shard), q, &answer); err != nil {
		return presence.Answer{}, err
	}
	if answer.Error != "" {
		return presence.Answer{}, fmt.Errorf("presence shard %d: %s: %w", shard, answer.Error, ErrUnavailable)
	}
	return answer, nil
}

// ask sends one JSON request and reads the JSON reply, trying again while nobody listens.
func (r *Reader) ask(ctx context.Context, subj string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request to %s: %w", subj, err)
	}
	for attempt := 0; ; attempt++ {
		msg, err := r.nc.RequestWithContext(ctx, subj, body)
		if err == nil {
			if err := json.Unmarshal(msg.Data, reply); err != nil {
				return fmt.Errorf("decode reply of %s: %w", subj, err)
			}
			return nil
		}
		if !errors.Is(err, nats.ErrNoResponders) || attempt == len(retries) || !wait(ctx, retries[attempt]) {
			return fmt.Errorf("ask %s: %w: %w", subj, err, ErrUnavailable)
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// each calls do(0) to do(n-1), at most asksMax at a time, and returns the first error when all have returned.
func each(n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, asksMax)
		errs  = make([]error, n)
	)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
