package centrifugoapi

import (
	"context"
	"encoding/json"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
)

// Target names the connections that a request is about.
type Target struct {
	User   string `json:"user"`
	Client string `json:"client"`
	// AllUsers is everybody.
	AllUsers bool `json:"all_users"`
	// Session and LabelFilter would narrow the target: they are refused.
	Session     string          `json:"session"`
	LabelFilter json.RawMessage `json:"label_filter"`
}

// selected is the target, or why it can't be one.
func (t *Target) selected() (control.Select, *Error) {
	switch {
	case t.Session != "":
		return control.Select{}, notAvailable("session is not supported: name the connection by client")
	case isSet(t.LabelFilter):
		return control.Select{}, notAvailable("label_filter is not supported: name connections by user or client")
	case t.User == "" && t.Client == "" && !t.AllUsers:
		return control.Select{}, badRequest("nobody is named: give user, client or all_users")
	}
	return control.Select{User: t.User, Client: t.Client, All: t.AllUsers && t.User == "" && t.Client == ""}, nil
}

// isSet says whether JSON is there and not null.
func isSet(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// SubscribeRequest subscribes connections to a channel.
type SubscribeRequest struct {
	Channel string `json:"channel"`
	Target
	ExpireAt     int64           `json:"expire_at"` // Unix seconds, 0 is never
	Info         json.RawMessage `json:"info"`
	B64Info      string          `json:"b64info"`
	Data         json.RawMessage `json:"data"`
	B64Data      string          `json:"b64data"`
	RecoverSince *StreamPosition `json:"recover_since"`
	Override     *Override       `json:"override"`
}

// Override is what counts for the subscription in place of the policy.
type Override struct {
	Presence           *BoolValue `json:"presence"`
	JoinLeave          *BoolValue `json:"join_leave"`
	ForceRecovery      *BoolValue `json:"force_recovery"`
	ForcePositioning   *BoolValue `json:"force_positioning"`
	ForcePushJoinLeave *BoolValue `json:"force_push_join_leave"`
}

// BoolValue is a value that may be left out.
type BoolValue struct {
	Value bool `json:"value"`
}

func (v *BoolValue) pointer() *bool {
	if v == nil {
		return nil
	}
	return &v.Value
}

// Subscribe subscribes connections to a channel.
func (c *Core) Subscribe(ctx context.Context, a *app.App, req *SubscribeRequest) (*Empty, *Error) {
	if _, err := checkChannel(a, req.Channel); err != nil {
		return nil, err
	}
	info, err := infoOf(req.Info, req.B64Info)
	if err != nil {
		return nil, err
	}
	data, err := payload("data", req.Data, req.B64Data)
	if err != nil {
		return nil, err
	}
	sub := &control.SubscribeThem{Channel: req.Channel, Grant: authz.Grant{ExpireAt: req.ExpireAt, Info: info, Data: data}}
	if o := req.Override; o != nil {
		sub.Grant.Presence, sub.Grant.JoinLeave, sub.Grant.ForceJoinLeave = o.Presence.pointer(), o.JoinLeave.pointer(), o.ForcePushJoinLeave.pointer()
		sub.Grant.ForcePosition, sub.Grant.ForceRecovery = o.ForcePositioning.pointer(), o.ForceRecovery.pointer()
	}
	if s := req.RecoverSince; s != nil {
		sub.SinceOffset, sub.SinceEpoch = s.Offset, s.Epoch
	}
	return c.operate(ctx, a, "subscribe", &req.Target, control.Operation{Subscribe: sub})
}

// infoOf gives info as JSON, which it must be in either form: it travels
// inside the JSON of others.
func infoOf(raw json.RawMessage, b64 string) (string, *Error) {
	info, err := payload("info", raw, b64)
	if err != nil {
		return "", err
	}
	if len(info) > 0 && !json.Valid(info) {
		return "", badRequest("info is not JSON")
	}
	return string(info), nil
}

// UnsubscribeRequest ends subscriptions.
type UnsubscribeRequest struct {
	Channel string `json:"channel"`
	Target
}

// Unsubscribe ends the subscriptions of connections to a channel.
func (c *Core) Unsubscribe(ctx context.Context, a *app.App, req *UnsubscribeRequest) (*Empty, *Error) {
	if _, err := checkChannel(a, req.Channel); err != nil {
		return nil, err
	}
	return c.operate(ctx, a, "unsubscribe", &req.Target, control.Operation{Unsubscribe: req.Channel})
}

// DisconnectRequest ends connections.
type DisconnectRequest struct {
	Target
	Disconnect *DisconnectWith `json:"disconnect"`
	// Whitelist are client ids that stay.
	Whitelist []string `json:"whitelist"`
}

// DisconnectWith is what clients are told: the code decides whether they come
// back (Centrifugo, "disconnect codes").
type DisconnectWith struct {
	Code   uint32 `json:"code"`
	Reason string `json:"reason"`
}

const (
	forceDisconnect = 3503 // terminal
	codeFirst       = 3000
	codeLast        = 4999
	// reasonMax is what a close frame has room for besides its code (RFC 6455
	// 5.5), with a margin.
	reasonMax = 120
	// whitelistMax bounds what every gateway compares with.
	whitelistMax = 1000
)

// Disconnect ends connections.
func (c *Core) Disconnect(ctx context.Context, a *app.App, req *DisconnectRequest) (*Empty, *Error) {
	with := authz.Verdict{Disconnect: true, Code: forceDisconnect, Text: "force disconnect"}
	if d := req.Disconnect; d != nil && (d.Code != 0 || d.Reason != "") {
		with.Code, with.Text = d.Code, d.Reason
	}
	switch {
	case with.Code < codeFirst || with.Code > codeLast:
		return nil, badRequest("disconnect.code is %d, want %d to %d", with.Code, codeFirst, codeLast)
	case len(with.Text) > reasonMax:
		return nil, badRequest("disconnect.reason has %d bytes, at most %d are allowed", len(with.Text), reasonMax)
	case json.Valid([]byte(with.Text)):
		return nil, badRequest("disconnect.reason %q is JSON, which clients would read as an order: use words", with.Text)
	case len(req.Whitelist) > whitelistMax:
		return nil, limitExceeded("whitelist has %d clients, at most %d are allowed", len(req.Whitelist), whitelistMax)
	}
	return c.operate(ctx, a, "disconnect", &req.Target, control.Operation{
		Select: control.Select{Except: req.Whitelist}, Disconnect: &with,
	})
}

// RefreshRequest changes how long connections live.
type RefreshRequest struct {
	Target
	// Expired ends them as expired.
	Expired bool `json:"expired"`
	// ExpireAt in Unix seconds; 0 is never.
	ExpireAt int64           `json:"expire_at"`
	Info     json.RawMessage `json:"info"`
}

// Refresh prolongs connections, or has them expire.
func (c *Core) Refresh(ctx context.Context, a *app.App, req *RefreshRequest) (*Empty, *Error) {
	info, err := infoOf(req.Info, "")
	if err != nil {
		return nil, err
	}
	return c.operate(ctx, a, "refresh", &req.Target, control.Operation{
		Refresh: &authz.Credentials{User: req.User, Expired: req.Expired, ExpireAt: req.ExpireAt, Info: info},
	})
}

// operate has all gateways do it to the connections of theirs that are meant.
func (c *Core) operate(ctx context.Context, a *app.App, what string, on *Target, op control.Operation) (*Empty, *Error) {
	sel, refused := on.selected()
	if refused != nil {
		return nil, refused
	}
	sel.Except = op.Except
	op.Select = sel
	if err := c.deps.Fleet.Tell(ctx, control.Command{App: a.ID, Operation: &op}); err != nil {
		return nil, c.failed(ctx, what, err)
	}
	return &Empty{}, nil
}

// ConnectionsRequest lists connections.
type ConnectionsRequest struct {
	User        string          `json:"user"`
	Expression  string          `json:"expression"`
	LabelFilter json.RawMessage `json:"label_filter"`
}

// ConnectionsResult has the connections by client id.
type ConnectionsResult struct {
	Connections map[string]Connection `json:"connections"`
}

// Connection describes one.
type Connection struct {
	AppName    string           `json:"app_name,omitempty"`
	AppVersion string           `json:"app_version,omitempty"`
	Transport  string           `json:"transport,omitempty"`
	Protocol   string           `json:"protocol,omitempty"`
	User       string           `json:"user,omitempty"`
	State      *ConnectionState `json:"state,omitempty"`
}

// ConnectionState is what a connection has now.
type ConnectionState struct {
	Channels map[string]Empty `json:"channels,omitempty"`
	Meta     json.RawMessage  `json:"meta,omitempty"`
}

// Connections lists the connections of a user, or all.
func (c *Core) Connections(ctx context.Context, a *app.App, req *ConnectionsRequest) (*ConnectionsResult, *Error) {
	if req.Expression != "" || isSet(req.LabelFilter) {
		return nil, notAvailable("expression and label_filter are not supported: name connections by user")
	}
	list, cut, err := c.deps.Fleet.Connections(ctx, a.ID, control.Select{User: req.User, All: req.User == ""})
	if err != nil {
		return nil, c.failed(ctx, "connections", err)
	}
	if cut {
		return nil, limitExceeded("more than %d connections: ask for those of one user", len(list))
	}
	out := &ConnectionsResult{Connections: make(map[string]Connection, len(list))}
	for i := range list {
		out.Connections[list[i].Client] = describe(&list[i])
	}
	return out, nil
}

func describe(of *control.Connection) Connection {
	state := &ConnectionState{Meta: asJSON(of.Meta)}
	if len(of.Channels) > 0 {
		state.Channels = make(map[string]Empty, len(of.Channels))
	}
	for _, name := range of.Channels {
		state.Channels[name] = Empty{}
	}
	return Connection{
		AppName: of.Name, AppVersion: of.Version, Transport: of.Transport, Protocol: of.Protocol, User: of.User, State: state,
	}
}
