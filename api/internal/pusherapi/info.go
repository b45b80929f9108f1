package pusherapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// info is what a request asks to be told about channels.
type info struct{ users, subscriptions, cache bool }

// parseInfo reads a list such as "user_count,subscription_count". Attributes that it does not know are left out of the answer, as
// unknown members of a body are.
func parseInfo(list string) info {
	var in info
	for list != "" {
		var name string
		name, list, _ = strings.Cut(list, ",")
		switch strings.TrimSpace(name) {
		case "user_count":
			in.users = true
		case "subscription_count":
			in.subscriptions = true
		case "cache":
			in.cache = true
		}
	}
	return in
}

// counts says whether the presence owners have to be asked.
func (in info) counts() bool { return in.users || in.subscriptions }

// triggerInfo is the body of a trigger with info. The event is published by now: counts that can't be read are left out and the
// answer is marked, because an error would be repeated, and the event with it.
func (h *Handler) triggerInfo(ctx context.Context, c *call, names []string, want info) answer {
	infos, incomplete, err := h.deps.Reader.Channels(ctx, c.app.ID, names)
	if err != nil {
		h.deps.Log.WarnContext(ctx, "counts of a trigger are left out", "app", c.app.ID, "err", err)
		want, incomplete = info{}, true
	}
	body := append([]byte(nil), `{"channels":{`...)
	for i, name := range names {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendNamed(body, name, &infos[i], want)
	}
	return answer{status: http.StatusOK, body: string(append(body, "}}"...)), incomplete: incomplete}
}

// batchInfo is the body of a batch: an array in the order of the batch if any of its events asks for info.
func (h *Handler) batchInfo(ctx context.Context, c *call, events []event) answer {
	wants, names, at := make([]info, len(events)), []string(nil), make([]int, len(events))
	asked := false
	for i := range events {
		asked = asked || events[i].info != ""
		if wants[i] = parseInfo(events[i].info); wants[i].counts() {
			at[i] = len(names)
			names = append(names, events[i].channels[0])
		}
	}
	if !asked {
		return answer{status: http.StatusOK, body: emptyObject}
	}
	infos, incomplete, err := h.deps.Reader.Channels(ctx, c.app.ID, names)
	if err != nil {
		h.deps.Log.WarnContext(ctx, "counts of a batch are left out", "app", c.app.ID, "err", err)
		clear(wants)
		incomplete = true
	}
	body := append([]byte(nil), `{"batch":[`...)
	for i := range events {
		if i > 0 {
			body = append(body, ',')
		}
		counts := &presence.ChannelInfo{}
		if wants[i].counts() {
			counts = &infos[at[i]]
		}
		body = append(body, '{')
		body = appendCounts(body, events[i].channels[0], counts, wants[i])
		body = append(body, '}')
	}
	return answer{status: http.StatusOK, body: string(append(body, "]}"...)), incomplete: incomplete}
}

// appendNamed appends "name":{counts}.
func appendNamed(body []byte, name string, counts *presence.ChannelInfo, want info) []byte {
	body = jsonx.AppendString(body, name)
	body = append(body, ':', '{')
	body = appendCounts(body, name, counts, want)
	return append(body, '}')
}

// appendCounts appends the members that are asked for; users are counted on presence channels only.
func appendCounts(body []byte, name string, counts *presence.ChannelInfo, want info) []byte {
	if want.users && channel.KindOf(name).Presence {
		body = appendCount(body, "user_count", counts.Users)
	}
	if want.subscriptions {
		body = appendCount(body, "subscription_count", counts.Subscriptions)
	}
	return body
}

func appendCount(body []byte, name string, n int) []byte {
	if last := body[len(body)-1]; last != '{' {
		body = append(body, ',')
	}
	body = append(body, '"')
	body = append(body, name...)
	body = append(body, '"', ':')
	return strconv.AppendInt(body, int64(n), 10)
}
