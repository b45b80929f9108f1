package state

import (
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// census is who is where: the rooms and online users that the gateways' seats
// sum up to. It tells news of every change.
type census struct {
	news   *announcer
	rooms  map[channel.Key]*room
	online map[channel.Key]int // gateways at which the user is online
}

func (c *census) size() (channels, members, online int) {
	for _, r := range c.rooms {
		members += len(r.members)
	}
	return len(c.rooms), members, len(c.online)
}

func (c *census) join(g *gateway, key channel.Key, op *presence.Op) {
	if op.User == "" || key.Name == "" {
		return
	}
	r := c.room(key)
	m := r.members[op.User]
	if m == nil {
		m = r.add(op)
		c.news.memberAdded(r, m)
	}
	seat := c.seat(g, r)
	if _, here := seat.users[m.ID]; !here {
		if seat.users == nil {
			seat.users = make(map[string]*member)
		}
		seat.users[m.ID] = m
		m.holders++
	}
}

func (c *census) leave(g *gateway, key channel.Key, user string) {
	seat := g.seats[key]
	if seat == nil {
		return
	}
	m, here := seat.users[user]
	if !here {
		return
	}
	delete(seat.users, user)
	m.holders--
	if m.holders == 0 {
		seat.room.remove(m)
		c.news.memberRemoved(seat.room, m)
	}
	c.tidy(g, seat)
}

func (c *census) setCount(g *gateway, key channel.Key, n uint64) {
	seat := g.seats[key]
	if key.Name == "" || (seat == nil && n == 0) {
		return
	}
	if seat == nil {
		seat = c.seat(g, c.room(key))
	}
	if seat.subscriptions == n {
		return
	}
	r := seat.room
	before := r.subscriptions
	r.subscriptions += n - seat.subscriptions // wraps back when n is the smaller one
	seat.subscriptions = n
	c.news.countChanged(r, before)
	c.tidy(g, seat)
}

func (c *census) setOnline(g *gateway, key channel.Key) {
	if _, here := g.online[key]; here || !strings.HasPrefix(key.Name, channel.OnlinePrefix) {
		return
	}
	key = cloneKey(key)
	g.online[key] = struct{}{}
	c.online[key]++
	if c.online[key] == 1 && !c.news.silent {
		c.news.emit(onlineEffect(Online, key))
	}
}

func (c *census) setOffline(g *gateway, key channel.Key) {
	if _, here := g.online[key]; !here {
		return
	}
	delete(g.online, key)
	c.online[key]--
	if c.online[key] == 0 {
		delete(c.online, key)
		c.news.emit(onlineEffect(Offline, key))
	}
}

func onlineEffect(kind Kind, key channel.Key) Effect {
	id := strings.TrimPrefix(key.Name, channel.OnlinePrefix)
	return Effect{Kind: kind, Key: cloneKey(key), Member: presence.Member{ID: id}, Live: true}
}

// lost tells of the users whose connections have gone with a gateway: there was
// nobody who could say so.
func (c *census) lost(g *gateway) {
	told := map[channel.Key]struct{}{}
	for key := range g.online {
		if c.news.wantsLost(key.App) {
			told[key] = struct{}{}
		}
	}
	for _, key := range sortedKeys(told) {
		e := onlineEffect(Lost, key)
		e.Live, e.Hook = false, true
		c.news.emit(e)
	}
}

// room gives the room of a key and makes it if it is missing.
func (c *census) room(key channel.Key) *room {
	r := c.rooms[key]
	if r == nil {
		r = &room{key: cloneKey(key)}
		c.rooms[r.key] = r
	}
	return r
}

func (c *census) seat(g *gateway, r *room) *seat {
	st := g.seats[r.key]
	if st == nil {
		st = &seat{room: r}
		g.seats[r.key] = st
	}
	return st
}

// tidy forgets a seat and a room that hold nothing any more.
func (c *census) tidy(g *gateway, st *seat) {
	if !st.empty() {
		return
	}
	delete(g.seats, st.room.key)
	if r := st.room; r.empty() {
		delete(c.rooms, r.key)
	}
}

// cloneKey makes a key that aliases no message.
func cloneKey(k channel.Key) channel.Key {
	return channel.Key{App: strings.Clone(k.App), Name: strings.Clone(k.Name)}
}
