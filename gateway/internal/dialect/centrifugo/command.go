package centrifugo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
)

var (
	errEmpty   = errors.New("the message has an empty command")
	errTwo     = errors.New("the command has more than one body")
	errNoBody  = errors.New("the command has no body that is known")
	errNoID    = errors.New("the command has no id: only send needs none")
	errNotUTF8 = errors.New("not valid UTF-8")
)

// Commands yields the commands of one message in order, and ends with the
// first that is not one: its error says why.
//
//	JSON:     commands are separated by one newline, one more may follow
//	protobuf: each has its length before it
//
// A message of a client that only listens is one command without an envelope.
func (d *Dialect) Commands(message []byte) iter.Seq2[Command, error] {
	switch {
	case d.unidirectional:
		return func(yield func(Command, error) bool) { yield(d.connectRequest(message)) }
	case d.encoding == Protobuf:
		return protobufCommands(message)
	}
	return jsonCommands(message)
}

func jsonCommands(message []byte) iter.Seq2[Command, error] {
	return func(yield func(Command, error) bool) {
		message = bytes.TrimSuffix(message, []byte("\n"))
		for more := true; more; {
			var line []byte
			line, message, more = bytes.Cut(message, []byte("\n"))
			cmd, err := decodeJSON(line)
			if !yield(cmd, err) || err != nil {
				return
			}
		}
	}
}

func decodeJSON(line []byte) (Command, error) {
	if len(line) == 0 {
		return Command{}, errEmpty
	}
	if err := checkJSON(line); err != nil {
		return Command{}, fmt.Errorf("the command is %w", err)
	}
	return decode(line, true)
}

// checkJSON says why a document is not what reader expects of JSON.
func checkJSON(document []byte) error {
	if !utf8.Valid(document) {
		return errNotUTF8
	}
	if !json.Valid(document) {
		return fmt.Errorf("not JSON: %w", json.Unmarshal(document, new(json.RawMessage)))
	}
	return nil
}

func protobufCommands(message []byte) iter.Seq2[Command, error] {
	return func(yield func(Command, error) bool) {
		if len(message) == 0 {
			yield(Command{}, errEmpty)
			return
		}
		for len(message) > 0 {
			body, n := protowire.ConsumeBytes(message)
			if n < 0 {
				yield(Command{}, errShort)
				return
			}
			message = message[n:]
			cmd, err := decode(body, false)
			if !yield(cmd, err) || err != nil {
				return
			}
		}
	}
}

var commandNames = []string{
	1: "id", 4: "connect", 5: "subscribe", 6: "unsubscribe", 7: "publish", 8: "presence", 9: "presence_stats",
	10: "history", 11: "ping", 12: "send", 13: "rpc", 14: "refresh", 15: "sub_refresh",
}

func newBody(number int) Body {
	switch number {
	case 4:
		return &ConnectRequest{}
	case 5:
		return &SubscribeRequest{}
	case 6:
		return &UnsubscribeRequest{}
	case 7:
		return &PublishRequest{}
	case 8:
		return &PresenceRequest{}
	case 9:
		return &PresenceStatsRequest{}
	case 10:
		return &HistoryRequest{}
	case 11:
		return &PingRequest{}
	case 12:
		return &SendRequest{}
	case 13:
		return &RPCRequest{}
	case 14:
		return &RefreshRequest{}
	case 15:
		return &SubRefreshRequest{}
	}
	return nil
}

// decode reads one command. One without id and body is a pong.
func decode(document []byte, isJSON bool) (cmd Command, err error) {
	r := reader{json: isJSON, err: &err}
	r.enter(document)
	fields := 0
	for ; r.next(commandNames); fields++ {
		if r.number == 1 {
			cmd.ID = uint32(r.uint(math.MaxUint32))
			continue
		}
		body := newBody(r.number)
		switch {
		case body == nil: // of a protocol to come
		case cmd.Body != nil:
			r.fail(errTwo)
		default:
			m := r.message()
			body.read(&m)
			cmd.Body = body
		}
	}
	if err != nil {
		return Command{}, err
	}
	_, send := cmd.Body.(*SendRequest)
	switch {
	case cmd.Body == nil && cmd.ID == 0 && fields == 0 && isPong(document, isJSON):
		return cmd, nil
	case cmd.Body == nil:
		return Command{}, errNoBody
	case cmd.ID == 0 && !send:
		return Command{}, errNoID
	}
	return cmd, nil
}

// isPong: an object without members, a message without fields.
func isPong(document []byte, isJSON bool) bool {
	if isJSON {
		inside := bytes.TrimSpace(document)
		return len(bytes.TrimSpace(inside[1:len(inside)-1])) == 0
	}
	return len(document) == 0
}

var connectNames = []string{1: "token", 2: "data", 3: "subs", 4: "name", 5: "version", 6: "headers"}

func (b *ConnectRequest) read(r *reader) {
	for r.next(connectNames) {
		switch r.number {
		case 1:
			b.Token = r.string()
		case 2:
			b.Data = r.raw()
		case 3:
			r.entries(func(channel string, value *reader) {
				var sub SubscribeRequest
				m := value.message()
				sub.read(&m)
				if b.Subs == nil {
					b.Subs = map[string]SubscribeRequest{}
				}
				b.Subs[channel] = sub
			})
		case 4:
			b.Name = r.string()
		case 5:
			b.Version = r.string()
		case 6:
			r.entries(func(name string, value *reader) {
				if b.Headers == nil {
					b.Headers = map[string]string{}
				}
				b.Headers[name] = value.string()
			})
		}
	}
}

var subscribeNames = []string{
	1: "channel", 2: "token", 3: "recover", 6: "epoch", 7: "offset", 8: "data", 9: "positioned", 10: "recoverable",
	11: "join_leave", 12: "delta", 13: "tf", 14: "flag", 15: "type",
}

func (b *SubscribeRequest) read(r *reader) {
	for r.next(subscribeNames) {
		switch r.number {
		case 1:
			b.Channel = r.string()
		case 2:
			b.Token = r.string()
		case 3:
			b.Recover = r.bool()
		case 6:
			b.Epoch = r.string()
		case 7:
			b.Offset = r.uint(math.MaxUint64 - 1)
		case 8:
			b.Data = r.raw()
		case 9:
			b.Positioned = r.bool()
		case 10:
			b.Recoverable = r.bool()
		case 11:
			b.JoinLeave = r.bool()
		case 12:
			b.Delta = r.string()
		case 13:
			m := r.message()
			b.Filter = &tagfilter.Node{}
			readFilter(&m, b.Filter)
		case 14:
			b.Flag = r.int()
		case 15:
			b.Type = r.int()
		}
	}
}

var filterNames = []string{1: "op", 2: "key", 3: "cmp", 4: "val", 5: "vals", 6: "nodes"}

func readFilter(r *reader, f *tagfilter.Node) {
	for r.next(filterNames) {
		switch r.number {
		case 1:
			f.Op = r.string()
		case 2:
			f.Key = r.string()
		case 3:
			f.Cmp = r.string()
		case 4:
			f.Val = r.string()
		case 5:
			r.each(func(element *reader) { f.Vals = append(f.Vals, element.string()) })
		case 6:
			r.each(func(element *reader) {
				m := element.message()
				var node tagfilter.Node
				readFilter(&m, &node)
				f.Nodes = append(f.Nodes, node)
			})
		}
	}
}

var channelNames = []string{1: "channel"}

// readChannel reads the requests that have nothing but a channel.
func readChannel(r *reader) (channel string) {
	for r.next(channelNames) {
		if r.number == 1 {
			channel = r.string()
		}
	}
	return channel
}

func (b *UnsubscribeRequest) read(r *reader)   { b.Channel = readChannel(r) }
func (b *PresenceRequest) read(r *reader)      { b.Channel = readChannel(r) }
func (b *PresenceStatsRequest) read(r *reader) { b.Channel = readChannel(r) }

var publishNames = []string{1: "channel", 2: "data", 3: "type"}

func (b *PublishRequest) read(r *reader) {
	for r.next(publishNames) {
		switch r.number {
		case 1:
			b.Channel = r.string()
		case 2:
			b.Data = r.raw()
		case 3:
			b.Type = r.int()
		}
	}
}

var (
	historyNames  = []string{1: "channel", 7: "limit", 8: "since", 9: "reverse"}
	positionNames = []string{1: "offset", 2: "epoch"}
)

func (b *HistoryRequest) read(r *reader) {
	for r.next(historyNames) {
		switch r.number {
		case 1:
			b.Channel = r.string()
		case 7:
			b.Limit = r.int()
		case 8:
			b.Since = &Position{}
			for m := r.message(); m.next(positionNames); {
				switch m.number {
				case 1:
					b.Since.Offset = m.uint(math.MaxUint64 - 1)
				case 2:
					b.Since.Epoch = m.string()
				}
			}
		case 9:
			b.Reverse = r.bool()
		}
	}
}

func (b *PingRequest) read(r *reader) {
	for r.next(nil) {
		continue
	}
}

var dataNames = []string{1: "data", 2: "method"}

func (b *SendRequest) read(r *reader) {
	for r.next(dataNames) {
		if r.number == 1 {
			b.Data = r.raw()
		}
	}
}

func (b *RPCRequest) read(r *reader) {
	for r.next(dataNames) {
		switch r.number {
		case 1:
			b.Data = r.raw()
		case 2:
			b.Method = r.string()
		}
	}
}

var tokenNames = []string{1: "token"}

func (b *RefreshRequest) read(r *reader) {
	for r.next(tokenNames) {
		if r.number == 1 {
			b.Token = r.string()
		}
	}
}

var subRefreshNames = []string{1: "channel", 2: "token", 3: "type"}

func (b *SubRefreshRequest) read(r *reader) {
	for r.next(subRefreshNames) {
		switch r.number {
		case 1:
			b.Channel = r.string()
		case 2:
			b.Token = r.string()
		case 3:
			b.Type = r.int()
		}
	}
}
