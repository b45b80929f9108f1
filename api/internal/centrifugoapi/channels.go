package centrifugoapi

import (
	"context"
	"encoding/json"
	"math"
	"strings"

	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// ChannelRequest names a channel, and nothing else.
type ChannelRequest struct {
	Channel string `json:"channel"`
}

// ClientInfo describes a connection.
type ClientInfo struct {
	User     string          `json:"user"`
	Client   string          `json:"client"`
	ConnInfo json.RawMessage `json:"conn_info,omitempty"`
	ChanInfo json.RawMessage `json:"chan_info,omitempty"`
}

// PresenceResult has who is in a channel, by client id.
type PresenceResult struct {
	Presence map[string]*ClientInfo `json:"presence"`
}

// PresenceStatsResult counts them.
type PresenceStatsResult struct {
	NumClients int `json:"num_clients"`
	NumUsers   int `json:"num_users"`
}

// Presence lists who is in a channel. In channels with the prefix "presence-"
// that is users, each once, by their ids: no client of theirs is named.
func (c *Core) Presence(ctx context.Context, a *app.App, req *ChannelRequest) (*PresenceResult, *Error) {
	who, err := c.roster(ctx, a, req.Channel)
	if err != nil {
		return nil, err
	}
	return &PresenceResult{who}, nil
}

// PresenceStats counts who is in a channel.
func (c *Core) PresenceStats(ctx context.Context, a *app.App, req *ChannelRequest) (*PresenceStatsResult, *Error) {
	e, refused := presenceOf(a, req.Channel)
	if refused != nil {
		return nil, refused
	}
	if e.Kind.Presence { // counts of users and connections are kept
		info, _, err := c.deps.Reader.Channel(ctx, a.ID, req.Channel, false)
		if err != nil {
			return nil, c.failed(ctx, "presence_stats", err)
		}
		return &PresenceStatsResult{NumClients: info.Subscriptions, NumUsers: info.Users}, nil
	}
	who, refused := c.roster(ctx, a, req.Channel)
	if refused != nil {
		return nil, refused
	}
	users := map[string]bool{}
	for _, info := range who {
		users[info.User] = true
	}
	return &PresenceStatsResult{NumClients: len(who), NumUsers: len(users)}, nil
}

// presenceOf gives the policy of a channel that has presence.
func presenceOf(a *app.App, name string) (app.Effective, *Error) {
	e, err := checkChannel(a, name)
	if err != nil {
		return e, err
	}
	if !e.Kind.Presence && (e.Rules == nil || !e.Rules.Presence) {
		return e, notAvailable("channel %q has no presence: set presence in a policy of app %s", name, a.ID)
	}
	return e, nil
}

func (c *Core) roster(ctx context.Context, a *app.App, name string) (map[string]*ClientInfo, *Error) {
	e, refused := presenceOf(a, name)
	if refused != nil {
		return nil, refused
	}
	info, _, err := c.deps.Reader.Channel(ctx, a.ID, name, true)
	if err != nil {
		return nil, c.failed(ctx, "presence", err)
	}
	who := make(map[string]*ClientInfo, len(info.Members))
	for i := range info.Members {
		who[info.Members[i].ID] = clientInfo(&info.Members[i], e.Kind.Presence)
	}
	return who, nil
}

// clientInfo describes a member: a user, or a connection whose info is that of
// a client (presence.Member).
func clientInfo(m *presence.MemberInfo, isUser bool) *ClientInfo {
	if isUser {
		return &ClientInfo{User: m.ID, ConnInfo: asJSON(m.Info)}
	}
	info := &ClientInfo{}
	if json.Unmarshal([]byte(m.Info), info) != nil { // of a dialect without such info
		info = &ClientInfo{ConnInfo: asJSON(m.Info)}
	}
	info.Client = m.ID
	return info
}

// HistoryRequest reads what was published to a channel.
type HistoryRequest struct {
	Channel string `json:"channel"`
	// Limit is how many publications are wanted: 0 none, below 0 all.
	Limit   int             `json:"limit"`
	Since   *StreamPosition `json:"since"`
	Reverse bool            `json:"reverse"`
}

// StreamPosition is a place in a channel's history.
type StreamPosition struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// HistoryResult is what was published, and where the channel is.
type HistoryResult struct {
	Publications []Publication `json:"publications"`
	Epoch        string        `json:"epoch"`
	Offset       uint64        `json:"offset"`
}

// Publication is one of a channel's history.
type Publication struct {
	// Data is what was published, byte for byte: see MarshalJSON.
	Data   []byte
	Info   json.RawMessage
	Offset uint64
	Tags   map[string]string
}

// MarshalJSON writes data as it is if it is JSON, else as a string.
func (p Publication) MarshalJSON() ([]byte, error) {
	data := json.RawMessage(`""`)
	if len(p.Data) > 0 {
		data = asJSON(string(p.Data))
	}
	return encode(struct {
		Data   json.RawMessage   `json:"data"`
		Info   json.RawMessage   `json:"info,omitempty"`
		Offset uint64            `json:"offset,omitempty"`
		Tags   map[string]string `json:"tags,omitempty"`
	}{data, asJSON(string(p.Info)), p.Offset, p.Tags}), nil
}

// asJSON gives JSON as it is, and anything else as a JSON string; nothing is
// nil.
func asJSON(s string) json.RawMessage {
	switch {
	case s == "":
		return nil
	case json.Valid([]byte(s)):
		return json.RawMessage(s)
	}
	return jsonx.AppendString(nil, s)
}

// History reads a channel's history.
func (c *Core) History(ctx context.Context, a *app.App, req *HistoryRequest) (*HistoryResult, *Error) {
	e, refused := checkChannel(a, req.Channel)
	if refused != nil {
		return nil, refused
	}
	if e.History.Size == 0 {
		return nil, notAvailable("channel %q has no history: set history.size in a policy of app %s", req.Channel, a.ID)
	}
	q := occupancy.HistoryQuery{Limit: min(req.Limit, HistoryMax), Reverse: req.Reverse}
	if req.Limit < 0 {
		q.Limit = HistoryMax
	}
	if since := req.Since; since != nil {
		if since.Offset > math.MaxInt64 {
			return nil, badRequest("since.offset is %d, which no offset can be", since.Offset)
		}
		switch at := message.Position(since.Offset); {
		case !req.Reverse:
			q.Since = at
		case at == 0: // before everything
			q.Limit = 0
		default:
			q.Before = at
		}
	}
	past, err := c.deps.Reader.History(ctx, a.ID, req.Channel, q)
	if err != nil {
		return nil, c.failed(ctx, "history", err)
	}
	if req.Since != nil && req.Since.Epoch != "" && req.Since.Epoch != past.Epoch {
		return nil, refuse(codeUnrecoverable, "unrecoverable position: the epoch is %q now", past.Epoch)
	}
	out := &HistoryResult{Publications: make([]Publication, 0, len(past.Publications)), Epoch: past.Epoch, Offset: uint64(past.Top)}
	for _, k := range past.Publications {
		out.Publications = append(out.Publications, kept(k))
	}
	return out, nil
}

// kept describes a publication. The name of an event is a tag, as it is for
// clients.
func kept(k occupancy.Kept) Publication {
	p := Publication{Data: k.Data, Info: k.Info, Offset: uint64(k.Position)}
	if len(k.Tags) > 0 || k.Event != "" {
		p.Tags = make(map[string]string, len(k.Tags)+1)
		for _, t := range k.Tags {
			p.Tags[t.Key] = t.Value
		}
		if k.Event != "" {
			p.Tags["event"] = k.Event
		}
	}
	return p
}

// Empty is the result of what has none.
type Empty struct{}

// HistoryRemove forgets what was published to a channel so far.
func (c *Core) HistoryRemove(ctx context.Context, a *app.App, req *ChannelRequest) (*Empty, *Error) {
	e, refused := checkChannel(a, req.Channel)
	if refused != nil {
		return nil, refused
	}
	if !e.Durable() {
		return nil, notAvailable("channel %q has no history: set history.size in a policy of app %s", req.Channel, a.ID)
	}
	pub := &message.Publication{Kind: message.HistoryRemoved, App: a.ID, Channel: req.Channel, TimeMs: uint64(c.deps.Now().UnixMilli())}
	r := c.deps.Sender.PublishWait(ctx, []*message.Publication{pub})[0]
	if r.Err != nil {
		return nil, ofPublisher(r.Err)
	}
	c.deps.Reader.Saw(a.ID, req.Channel, r.Epoch, r.Position)
	return &Empty{}, nil
}

// ChannelsRequest lists the channels that have subscribers. Limit and After
// are Carillon's own: the list comes in pages.
type ChannelsRequest struct {
	// Pattern has * for any run of characters and ? for one; "" is all.
	Pattern string `json:"pattern"`
	Limit   int    `json:"limit"`
	After   string `json:"after"`
}

// ChannelsResult has the channels by name.
type ChannelsResult struct {
	Channels map[string]ChannelInfo `json:"channels"`
	// Next is what After is for the next page, "" on the last one.
	Next string `json:"next,omitempty"`
}

// ChannelInfo describes a channel.
type ChannelInfo struct {
	NumClients int `json:"num_clients,omitempty"`
}

// Channels lists channels.
func (c *Core) Channels(ctx context.Context, a *app.App, req *ChannelsRequest) (*ChannelsResult, *Error) {
	if req.Limit < 0 {
		return nil, badRequest("limit is %d, want 1 to %d, or none", req.Limit, ChannelsMax)
	}
	p := pattern(req.Pattern)
	q := occupancy.ListQuery{Prefix: p.prefix(), After: req.After, Limit: req.Limit, Keep: p.keep()}
	if q.Limit == 0 || q.Limit > ChannelsMax {
		q.Limit = ChannelsMax
	}
	infos, more, _, err := c.deps.Reader.Page(ctx, a.ID, q)
	if err != nil {
		return nil, c.failed(ctx, "channels", err)
	}
	if more && req.Limit == 0 && req.After == "" {
		return nil, limitExceeded("more than %d channels: ask for them in pages, with limit and after", ChannelsMax)
	}
	out := &ChannelsResult{Channels: make(map[string]ChannelInfo, len(infos))}
	for _, info := range infos {
		out.Channels[info.Name] = ChannelInfo{NumClients: info.Subscriptions}
	}
	if more {
		out.Next = infos[len(infos)-1].Name
	}
	return out, nil
}

// pattern is a glob of channel names.
type pattern string

// prefix is what all names begin with that it matches.
func (p pattern) prefix() string {
	if i := strings.IndexAny(string(p), "*?"); i >= 0 {
		return string(p[:i])
	}
	return string(p)
}

// keep says of names with the prefix whether they match; nil is yes.
func (p pattern) keep() func(name string) bool {
	if p == "" || p.prefix()+"*" == string(p) {
		return nil
	}
	return p.match
}

func (p pattern) match(name string) bool { return channel.Glob(string(p), name, true) }

// isInternal says whether a name is the cluster's own.
func isInternal(name string) bool { return strings.HasPrefix(name, channel.OnlinePrefix) }
