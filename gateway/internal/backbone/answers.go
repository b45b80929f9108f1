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
// everything that was delivered here.
func (s *Services) Stream(key channel.Key, keep resume.Keep, answer func(past *resume.Past, top message.Position, err error)) {
	partition := key.Partition(s.lasts.Partitions())
	req := history.Request{
		App: key.App, Channel: key.Name, AtLeast: atLeast(s.lasts, partition, s.lasts.Last(partition)), Limit: keep.Size,
	}
	s.reads.enter(key.App, func() {
		s.read(subject.History(partition), req, readAttempts, func(data []byte, err error) {
			s.reads.leave()
			past, top, err := streamOf(data, err, keep)
			s.metrics.read(err)
			answer(past, top, err)
		})
	}, func() {
		s.metrics.read(natsconn.ErrBusy)
		answer(nil, 0, natsconn.ErrBusy)
	})
}

func streamOf(data []byte, err error, keep resume.Keep) (*resume.Past, message.Position, error) {
	var r history.Reply
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		return nil, 0, err
	}
	past := &resume.Past{Epoch: r.Epoch, Floor: r.Floor, Newest: r.Newest, Entries: make([]resume.Entry, 0, len(r.Entries))}
	for _, e := range r.Entries {
		pub, err := message.Parse(e.Publication)
		if err != nil {
			return nil, 0, fmt.Errorf("read a stored publication: %w", err)
		}
		past.Entries = append(past.Entries, resume.Entry{Position: e.Position, Publication: pub})
	}
	keep.Trim(past, time.Now())
	return past, r.Top, nil
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
