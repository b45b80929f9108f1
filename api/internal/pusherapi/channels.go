package pusherapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/channel"
)

// channels is GET /apps/ID/channels: the occupied ones.
func (h *Handler) channels(ctx context.Context, c *call) (answer, error) {
	prefix, want := c.query.get("filter_by_prefix"), parseInfo(c.query.get("info"))
	if want.users && !strings.HasPrefix(prefix, "presence-") {
		return answer{}, refuse(http.StatusBadRequest, "user_count needs filter_by_prefix to begin with presence-, other channels have no users")
	}
	want.subscriptions = want.subscriptions || c.app.AlwaysCount
	infos, incomplete, err := h.deps.Reader.List(ctx, c.app.ID, prefix)
	if err != nil {
		return answer{}, err
	}
	body := append(make([]byte, 0, 32+48*len(infos)), `{"channels":{`...)
	for i := range infos {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendNamed(body, infos[i].Name, &infos[i], want)
	}
	return answer{status: http.StatusOK, body: string(append(body, "}}"...)), incomplete: incomplete}, nil
}

// channel is GET /apps/ID/channels/C. A channel without subscribers is not an error.
func (h *Handler) channel(ctx context.Context, c *call) (answer, error) {
	if err := h.checkChannel(c); err != nil {
		return answer{}, err
	}
	want := parseInfo(c.query.get("info"))
	want.subscriptions = want.subscriptions || c.app.AlwaysCount
	if want.users && !channel.KindOf(c.name).Presence {
		return answer{}, refuse(http.StatusBadRequest, "user_count is for presence channels, %q is not one", c.name)
	}
	counts, incomplete, err := h.deps.Reader.Channel(ctx, c.app.ID, c.name, false)
	if err != nil {
		return answer{}, err
	}
	body := append([]byte(nil), `{"occupied":`...)
	body = strconv.AppendBool(body, counts.Subscriptions > 0)
	body = appendCounts(body, c.name, &counts, want)
	if want.cache {
		if body, err = h.appendCached(ctx, body, c); err != nil {
			return answer{}, err
		}
	}
	return answer{status: http.StatusOK, body: string(append(body, '}')), incomplete: incomplete}, nil
}

// appendCached appends the last value: null on a miss and on a channel that keeps none.
func (h *Handler) appendCached(ctx context.Context, body []byte, c *call) ([]byte, error) {
	if !c.app.Effective(c.name).Cache {
		return append(body, `,"cache":null`...), nil
	}
	cached, err := h.deps.Reader.Cached(ctx, c.app.ID, c.name)
	if err != nil {
		return nil, err
	}
	if cached == nil {
		return append(body, `,"cache":null`...), nil
	}
	body = append(body, `,"cache":{"data":`...)
	body = jsonx.AppendStringBytes(body, cached.Data)
	body = appendCount(body, "ttl", cached.TTL)
	return append(body, '}'), nil
}

// users is GET /apps/ID/channels/C/users. with_user_info=1 adds what the members told about themselves.
func (h *Handler) users(ctx context.Context, c *call) (answer, error) {
	if err := h.checkChannel(c); err != nil {
		return answer{}, err
	}
	if !channel.KindOf(c.name).Presence {
		return answer{}, refuse(http.StatusBadRequest, "users are known of presence channels, %q is not one", c.name)
	}
	roster, incomplete, err := h.deps.Reader.Channel(ctx, c.app.ID, c.name, true)
	if err != nil {
		return answer{}, err
	}
	withInfo := c.query.get("with_user_info") == "1"
	body := append([]byte(nil), `{"users":[`...)
	for i, m := range roster.Members {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"id":`...)
		body = jsonx.AppendString(body, m.ID)
		if withInfo && m.Info != "" {
			body = append(body, `,"user_info":`...)
			body = append(body, m.Info...)
		}
		body = append(body, '}')
	}
	return answer{status: http.StatusOK, body: string(append(body, "]}"...)), incomplete: incomplete}, nil
}

func (h *Handler) checkChannel(c *call) error {
	if err := channel.ValidatePusher(c.name, c.app.Limits.ChannelNameBytes); err != nil {
		return refuse(http.StatusBadRequest, "channel %q: %v", c.name, err)
	}
	return nil
}
