package backbone

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

// What is asked on behalf of clients whose commands are answered. They wait
// for some seconds, and the application may have to be asked.
const (
	// decideTimeout is from the asking to the decision: clients wait 5 s.
	decideTimeout = 4 * time.Second
	// decideUnderway bounds the decisions that this gateway asks for at a time;
	// they have a line of their own, as those of an application that answers
	// slowly must not keep others from subscribing.
	decideUnderway = 256
	decideInLine   = 64 << 10
	decidePatience = 3 * time.Second

	readTimeout  = time.Second // of one of two attempts
	readAttempts = 2
	readUnderway = 64
	readInLine   = 16 << 10
	readPatience = 2 * time.Second
	// pageBytesMax is after how much a page of history ends, whatever its limit.
	pageBytesMax = 4 << 20
	// membersMax is how many members are told of a channel.
	membersMax = 10_000
)

// authSubject is where a request is decided, and for which app.
func authSubject(req any) (subj, app string) {
	switch r := req.(type) {
	case *authz.Connect:
		return subject.AuthConnect, r.App
	case *authz.Refresh:
		return subject.AuthRefresh, r.App
	case *authz.Subscribe:
		return subject.AuthSubscribe, r.App
	case *authz.SubRefresh:
		return subject.AuthSubRefresh, r.App
	case *authz.Publish:
		return subject.AuthPublish, r.App
	case *authz.RPC:
		return subject.AuthRPC, r.App
	}
	return "", ""
}

// Decide implements the edge's Answers.
func (s *Services) Decide(req any, answer func(authz.Decision)) {
	subj, app := authSubject(req)
	if subj == "" {
		answer(authz.Refuse(authz.Unavailable, fmt.Sprintf("nobody decides about %T", req)))
		return
	}
	s.decide(s.decisions, subj, app, req, answer)
}

// Submit implements the edge's Answers.
func (s *Services) Submit(pub *message.Publication, answer func(pos message.Position, why dialect.Reason)) {
	s.publish.Publish(pub, func(r publisher.Receipt) {
		if r.Err == nil {
			s.metrics.published.Inc()
			answer(r.Position, dialect.None)
			return
		}
		s.metrics.publishFailed.Inc()
		answer(0, notPublished(r.Err))
	})
}

func notPublished(err error) dialect.Reason {
	var refused *publisher.Error
	if !errors.As(err, &refused) {
		return dialect.Unavailable
	}
	switch refused.Code {
	case publisher.TooLarge:
		return dialect.TooLarge
	case publisher.BadChannel:
		return dialect.BadChannel
	case publisher.BadPublication, publisher.BadEvent, publisher.Conflict:
		return dialect.BadData
	case publisher.UnknownApp, publisher.AppDisabled:
		return dialect.NotAvailable
	}
	return dialect.Unavailable
}

// Members implements the edge's Answers: the owner of the channel is asked,
// for as many pages as there are.
func (s *Services) Members(key channel.Key, answer func(members []presence.Member, err error)) {
	s.reads.enter(key.App, func() {
		s.members(key, nil, func(members []presence.Member, err error) {
			s.reads.leave()
			s.metrics.read(err)
			answer(members, err)
		})
	}, func() {
		s.metrics.read(natsconn.ErrBusy)
		answer(nil, natsconn.ErrBusy)
	})
}

func (s *Services) members(key channel.Key, before []presence.Member, answer func([]presence.Member, error)) {
	q := presence.Query{App: key.App, Channel: key.Name, Members: true}
	if n := len(before); n > 0 {
		q.After = before[n-1].ID
	}
	s.read(subject.PresenceQuery(key.Shard(subject.PresenceShards)), q, readAttempts, func(data []byte, err error) {
		var a presence.Answer
		if err == nil {
			err = json.Unmarshal(data, &a)
		}
		if err == nil && a.Error != "" {
			err = errors.New(a.Error)
		}
		if err != nil {
			answer(nil, err)
			return
		}
		for i := range a.Channels {
			for _, m := range a.Channels[i].Members {
				before = append(before, presence.Member(m))
			}
		}
		if a.More && len(a.Channels) > 0 && len(before) < membersMax {
			s.members(key, before, answer)
			return
		}
		answer(before, nil)
	})
}

// Stream implements the edge's Answers: what routers know of a channel, as of
// everything that was delivered here, in as many reads as it takes.
func (s *Services) Stream(key channel.Key, page resume.Page, answer func(past *resume.Past, top message.Position, err error)) {
	partition := key.Partition(s.lasts.Partitions())
	got := &stretch{page: history.Request{
		App: key.App, Channel: key.Name, AtLeast: atLeast(s.lasts, partition, s.lasts.Last(partition)),
		Since: page.Since, Before: page.Before, Limit: page.Limit, Oldest: !page.Reverse,
	}}
	s.reads.enter(key.App, func() {
		s.stretch(subject.History(partition), got, func(err error) {
			s.reads.leave()
			s.metrics.read(err)
			if err != nil {
				answer(nil, 0, err)
				return
			}
			answer(&got.past, got.top, nil)
		})
	}, func() {
		s.metrics.read(natsconn.ErrBusy)
		answer(nil, 0, natsconn.ErrBusy)
	})
}

func (s *Services) stretch(subj string, got *stretch, answer func(error)) {
	s.read(subj, got.page, readAttempts, func(data []byte, err error) {
		more := false
		if err == nil {
			more, err = got.add(data)
		}
		if err != nil || !more {
			answer(err)
			return
		}
		s.stretch(subj, got, answer)
	})
}

// stretch is what was read of a page so far.
type stretch struct {
	page  history.Request // what is missing
	past  resume.Past
	top   message.Position
	bytes int
}

// add adds an answer, and says whether there is more to be read.
func (t *stretch) add(data []byte) (more bool, err error) {
	var r history.Reply
	if err := json.Unmarshal(data, &r); err != nil {
		return false, err
	}
	switch {
	case r.Error != "":
		return false, errors.New(r.Error)
	case t.past.Epoch != "" && t.past.Epoch != r.Epoch:
		return false, errors.New("the journal has begun anew")
	}
	entries := make([]resume.Entry, 0, len(r.Entries))
	for _, e := range r.Entries {
		pub, err := message.Parse(e.Publication)
		if err != nil {
			return false, fmt.Errorf("read a stored publication: %w", err)
		}
		t.bytes += len(e.Publication)
		entries = append(entries, resume.Entry{Position: e.Position, Publication: pub})
	}
	t.past.Epoch, t.past.Newest = r.Epoch, r.Newest
	t.top = max(t.top, r.Top)
	if r.Top == 0 { // the channel is forgotten: nothing of it is above the floor
		t.top = max(t.top, r.Floor)
	}
	n := len(entries)
	t.page.Limit -= n
	more = r.More && n > 0 && t.page.Limit > 0 && t.bytes < pageBytesMax
	if t.page.Oldest {
		t.past.Entries = append(t.past.Entries, entries...)
	} else {
		t.past.Entries = append(entries, t.past.Entries...)
	}
	if more && t.page.Oldest {
		t.page.Since = entries[n-1].Position
	} else if more {
		t.page.Before = entries[0].Position
	}
	return more, nil
}

// read asks a question, up to so many times.
func (s *Services) read(subj string, question any, attempts int, answer func(data []byte, err error)) {
	body, err := json.Marshal(question)
	if err != nil { // strings and numbers only: it can't be
		answer(nil, err)
		return
	}
	s.ask.Ask(subj, body, readTimeout, func(data []byte, err error) {
		if err != nil && attempts > 1 && !errors.Is(err, natsconn.ErrClosed) {
			s.read(subj, question, attempts-1, answer)
			return
		}
		answer(data, err)
	})
}
