package centrifugoapi

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/carillon-rt/carillon/proto/app"
)

// method is one of the API's calls: it gives the result of its params, which
// are JSON. An error of encoding/json means that they can't be read.
type method func(ctx context.Context, c *Core, a *app.App, params []byte) (any, error)

// methods are all but batch, which can't be part of one.
var methods = map[string]method{
	"publish":        of((*Core).Publish),
	"broadcast":      of((*Core).Broadcast),
	"subscribe":      of((*Core).Subscribe),
	"unsubscribe":    of((*Core).Unsubscribe),
	"disconnect":     of((*Core).Disconnect),
	"refresh":        of((*Core).Refresh),
	"presence":       of((*Core).Presence),
	"presence_stats": of((*Core).PresenceStats),
	"history":        of((*Core).History),
	"history_remove": of((*Core).HistoryRemove),
	"channels":       of((*Core).Channels),
	"connections":    of((*Core).Connections),
	"info":           of((*Core).Info),
	"rpc":            of((*Core).RPC),
}

// absent are the methods of other editions and of experiments, by number in
// commands of a batch (0: it has none).
var absent = map[string]int{
	"update_user_status": 18, "get_user_status": 19, "delete_user_status": 20,
	"block_user": 21, "unblock_user": 22, "revoke_token": 23, "invalidate_user_tokens": 24,
	"device_register": 25, "device_update": 26, "device_remove": 27, "device_list": 28,
	"device_topic_list": 29, "device_topic_update": 30, "user_topic_list": 31, "user_topic_update": 32,
	"send_push_notification": 33, "update_push_status": 34, "cancel_push": 35,
	"map_publish": 36, "map_remove": 37, "map_read_state": 38, "map_read_stream": 39, "map_stats": 40, "map_clear": 41,
	"shared_poll_publish": 42,
}

// malformed is params that can't be read.
type malformed struct{ err error }

func (m *malformed) Error() string { return "the request can't be read: " + m.err.Error() }
func (m *malformed) Unwrap() error { return m.err }

// of makes a method of a call. Params that are missing are empty ones.
func of[Req, Res any](call func(*Core, context.Context, *app.App, *Req) (*Res, *Error)) method {
	return func(ctx context.Context, c *Core, a *app.App, params []byte) (any, error) {
		req := new(Req)
		if len(bytes.TrimSpace(params)) > 0 {
			if err := json.Unmarshal(params, req); err != nil {
				return nil, &malformed{err}
			}
		}
		res, err := call(c, ctx, a, req)
		if err != nil { // a nil *Error must not become an error
			return nil, err
		}
		return res, nil
	}
}

// call is the method of that name, or the error that there is none.
func find(name string) (method, *Error) {
	if m, ok := methods[name]; ok {
		return m, nil
	}
	if _, known := absent[name]; known {
		return nil, notOffered(name)
	}
	return nil, refuse(codeMethodNotFound, "method not found: %q, want one of batch, %s",
		clip(name), strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
}

// clip keeps what a stranger sent short.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// command is one of a batch.
type command func(ctx context.Context) (any, error)

// reply is the answer to one.
type reply struct {
	result any
	err    *Error
}

// batch runs commands, one after the other or several at a time, and gives
// their replies in order. Those that are not begun when it is over are not
// done: whoever waited for them has sent them again by then.
func batch(ctx context.Context, commands []command, parallel bool) ([]reply, *Error) {
	if len(commands) > BatchMax {
		return nil, limitExceeded("%d commands, at most %d are allowed", len(commands), BatchMax)
	}
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	replies := make([]reply, len(commands))
	run := func(i int) {
		if ctx.Err() != nil {
			replies[i] = reply{err: refuse(codeInternal, "internal server error: the batch was over before this command, try again")}
			return
		}
		replies[i] = answer(commands[i](ctx))
	}
	if !parallel {
		for i := range commands {
			run(i)
		}
		return replies, nil
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range commands {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			run(i)
		})
	}
	wg.Wait()
	return replies, nil
}

// answer makes a reply; params of a single command that can't be read are its
// own error.
func answer(result any, err error) reply {
	switch e := err.(type) { //nolint:errorlint // both are made here and never wrapped
	case nil:
		return reply{result: result}
	case *Error:
		return reply{err: e}
	default:
		return reply{err: badRequest("%v", e)}
	}
}
