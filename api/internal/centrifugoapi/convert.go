package centrifugoapi

import (
	"context"
	"encoding/json"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/centrifugo/apipb"
)

// The calls, of and with messages of protobuf.
var (
	publishPB       = wire((*Core).Publish, fromPublish, toPublish)
	broadcastPB     = wire((*Core).Broadcast, fromBroadcast, toBroadcast)
	subscribePB     = wire((*Core).Subscribe, fromSubscribe, to[apipb.SubscribeResult])
	unsubscribePB   = wire((*Core).Unsubscribe, fromUnsubscribe, to[apipb.UnsubscribeResult])
	disconnectPB    = wire((*Core).Disconnect, fromDisconnect, to[apipb.DisconnectResult])
	refreshPB       = wire((*Core).Refresh, fromRefresh, to[apipb.RefreshResult])
	presencePB      = wire((*Core).Presence, fromChannel[*apipb.PresenceRequest], toPresence)
	presenceStatsPB = wire((*Core).PresenceStats, fromChannel[*apipb.PresenceStatsRequest], toPresenceStats)
	historyPB       = wire((*Core).History, fromHistory, toHistory)
	historyRemovePB = wire((*Core).HistoryRemove, fromChannel[*apipb.HistoryRemoveRequest], to[apipb.HistoryRemoveResult])
	channelsPB      = wire((*Core).Channels, fromChannels, toChannels)
	connectionsPB   = wire((*Core).Connections, fromConnections, toConnections)
	infoPB          = wire((*Core).Info, func(*apipb.InfoRequest) *InfoRequest { return &InfoRequest{} }, toInfo)
	rpcPB           = wire((*Core).RPC, fromRPC, func(r *RPCResult) *apipb.RPCResult { return &apipb.RPCResult{Data: r.Data} })
)

// wire puts conversions around a call.
func wire[In, Req, Res, Out any](call func(*Core, context.Context, *app.App, *Req) (*Res, *Error), from func(In) *Req, to func(*Res) Out,
) func(context.Context, *Core, *app.App, In) (Out, *Error) {
	return func(ctx context.Context, c *Core, a *app.App, in In) (out Out, err *Error) {
		res, err := call(c, ctx, a, from(in))
		if err != nil {
			return out, err
		}
		return to(res), nil
	}
}

// to makes an empty result.
func to[Out any](*Empty) *Out { return new(Out) }

func errorPB(err *Error) *apipb.Error {
	if err == nil {
		return nil
	}
	return &apipb.Error{Code: err.Code, Message: err.Message}
}

// contentPB is what publish and broadcast have in common.
type contentPB interface {
	GetData() []byte
	GetB64Data() string
	GetSkipHistory() bool
	GetTags() map[string]string
	GetIdempotencyKey() string
	GetDelta() bool
	GetVersion() uint64
	GetVersionEpoch() string
}

func fromContent(r contentPB) Content {
	return Content{
		Data: r.GetData(), B64Data: r.GetB64Data(), SkipHistory: r.GetSkipHistory(), Tags: r.GetTags(), IdempotencyKey: r.GetIdempotencyKey(),
		Delta: r.GetDelta(), Version: r.GetVersion(), VersionEpoch: r.GetVersionEpoch(),
	}
}

func fromPublish(r *apipb.PublishRequest) *PublishRequest {
	return &PublishRequest{Channel: r.GetChannel(), Content: fromContent(r)}
}

func toPublish(r *PublishResult) *apipb.PublishResult {
	return &apipb.PublishResult{Offset: r.Offset, Epoch: r.Epoch}
}

func fromBroadcast(r *apipb.BroadcastRequest) *BroadcastRequest {
	return &BroadcastRequest{Channels: r.GetChannels(), Content: fromContent(r)}
}

func toBroadcast(r *BroadcastResult) *apipb.BroadcastResult {
	out := &apipb.BroadcastResult{Responses: make([]*apipb.PublishResponse, len(r.Responses))}
	for i, one := range r.Responses {
		out.Responses[i] = &apipb.PublishResponse{Error: errorPB(one.Error)}
		if one.Result != nil {
			out.Responses[i].Result = toPublish(one.Result)
		}
	}
	return out
}

// targetPB is what requests about connections have in common.
type targetPB interface {
	proto.Message
	GetUser() string
	GetClient() string
	GetSession() string
	GetAllUsers() bool
}

func fromTarget(r targetPB) Target {
	return Target{
		User: r.GetUser(), Client: r.GetClient(), AllUsers: r.GetAllUsers(), Session: r.GetSession(), LabelFilter: unknownFields(r),
	}
}

// unknownFields stand for a label filter: to leave out what narrows a target
// would hit others.
func unknownFields(r proto.Message) json.RawMessage {
	if len(r.ProtoReflect().GetUnknown()) == 0 {
		return nil
	}
	return json.RawMessage(`{}`)
}

func fromSubscribe(r *apipb.SubscribeRequest) *SubscribeRequest {
	out := &SubscribeRequest{
		Channel: r.GetChannel(), Target: fromTarget(r), ExpireAt: r.GetExpireAt(), Info: r.GetInfo(), B64Info: r.GetB64Info(),
		Data: r.GetData(), B64Data: r.GetB64Data(), RecoverSince: fromPosition(r.GetRecoverSince()),
	}
	if o := r.GetOverride(); o != nil {
		out.Override = &Override{
			Presence: fromBool(o.GetPresence()), JoinLeave: fromBool(o.GetJoinLeave()), ForceRecovery: fromBool(o.GetForceRecovery()),
			ForcePositioning: fromBool(o.GetForcePositioning()), ForcePushJoinLeave: fromBool(o.GetForcePushJoinLeave()),
		}
	}
	return out
}

func fromBool(v *apipb.BoolValue) *BoolValue {
	if v == nil {
		return nil
	}
	return &BoolValue{v.GetValue()}
}

func fromPosition(p *apipb.StreamPosition) *StreamPosition {
	if p == nil {
		return nil
	}
	return &StreamPosition{Offset: p.GetOffset(), Epoch: p.GetEpoch()}
}

func fromUnsubscribe(r *apipb.UnsubscribeRequest) *UnsubscribeRequest {
	return &UnsubscribeRequest{Channel: r.GetChannel(), Target: fromTarget(r)}
}

func fromDisconnect(r *apipb.DisconnectRequest) *DisconnectRequest {
	out := &DisconnectRequest{Target: fromTarget(r), Whitelist: r.GetWhitelist()}
	if d := r.GetDisconnect(); d != nil {
		out.Disconnect = &DisconnectWith{Code: d.GetCode(), Reason: d.GetReason()}
	}
	return out
}

func fromRefresh(r *apipb.RefreshRequest) *RefreshRequest {
	return &RefreshRequest{Target: fromTarget(r), Expired: r.GetExpired(), ExpireAt: r.GetExpireAt(), Info: r.GetInfo()}
}

func fromChannel[In interface{ GetChannel() string }](r In) *ChannelRequest {
	return &ChannelRequest{Channel: r.GetChannel()}
}

func toClientInfo(c *ClientInfo) *apipb.ClientInfo {
	return &apipb.ClientInfo{User: c.User, Client: c.Client, ConnInfo: c.ConnInfo, ChanInfo: c.ChanInfo}
}

func toPresence(r *PresenceResult) *apipb.PresenceResult {
	out := &apipb.PresenceResult{Presence: make(map[string]*apipb.ClientInfo, len(r.Presence))}
	for id, info := range r.Presence {
		out.Presence[id] = toClientInfo(info)
	}
	return out
}

func toPresenceStats(r *PresenceStatsResult) *apipb.PresenceStatsResult {
	return &apipb.PresenceStatsResult{NumClients: number(r.NumClients), NumUsers: number(r.NumUsers)}
}

// number fits a count into the protocol's 32 bits.
func number[N int | int64](n N) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

func fromHistory(r *apipb.HistoryRequest) *HistoryRequest {
	return &HistoryRequest{Channel: r.GetChannel(), Limit: int(r.GetLimit()), Since: fromPosition(r.GetSince()), Reverse: r.GetReverse()}
}

func toHistory(r *HistoryResult) *apipb.HistoryResult {
	out := &apipb.HistoryResult{Epoch: r.Epoch, Offset: r.Offset, Publications: make([]*apipb.Publication, len(r.Publications))}
	for i := range r.Publications {
		p := &r.Publications[i]
		out.Publications[i] = &apipb.Publication{Data: p.Data, Offset: p.Offset, Tags: p.Tags}
		var info ClientInfo
		if len(p.Info) > 0 && json.Unmarshal(p.Info, &info) == nil {
			out.Publications[i].Info = toClientInfo(&info)
		}
	}
	return out
}

func fromChannels(r *apipb.ChannelsRequest) *ChannelsRequest {
	return &ChannelsRequest{Pattern: r.GetPattern(), Limit: int(r.GetLimit()), After: r.GetAfter()}
}

func toChannels(r *ChannelsResult) *apipb.ChannelsResult {
	out := &apipb.ChannelsResult{Channels: make(map[string]*apipb.ChannelInfo, len(r.Channels)), Next: r.Next}
	for name, info := range r.Channels {
		out.Channels[name] = &apipb.ChannelInfo{NumClients: number(info.NumClients)}
	}
	return out
}

func fromConnections(r *apipb.ConnectionsRequest) *ConnectionsRequest {
	return &ConnectionsRequest{User: r.GetUser(), Expression: r.GetExpression(), LabelFilter: unknownFields(r)}
}

func toConnections(r *ConnectionsResult) *apipb.ConnectionsResult {
	out := &apipb.ConnectionsResult{Connections: make(map[string]*apipb.ConnectionInfo, len(r.Connections))}
	for id, c := range r.Connections {
		info := &apipb.ConnectionInfo{
			AppName: c.AppName, AppVersion: c.AppVersion, Transport: c.Transport, Protocol: c.Protocol, User: c.User,
		}
		if c.State != nil {
			info.State = &apipb.ConnectionState{Meta: c.State.Meta, Channels: make(map[string]*apipb.ChannelContext, len(c.State.Channels))}
			for name := range c.State.Channels {
				info.State.Channels[name] = &apipb.ChannelContext{}
			}
		}
		out.Connections[id] = info
	}
	return out
}

func toInfo(r *InfoResult) *apipb.InfoResult {
	out := &apipb.InfoResult{Nodes: make([]*apipb.NodeResult, len(r.Nodes))}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		out.Nodes[i] = &apipb.NodeResult{
			Uid: n.UID, Name: n.Name, Version: n.Version, NumClients: number(n.NumClients), NumUsers: number(n.NumUsers),
			NumChannels: number(n.NumChannels), NumSubs: number(n.NumSubs), Uptime: number(n.Uptime),
		}
	}
	return out
}

func fromRPC(r *apipb.RPCRequest) *RPCRequest {
	return &RPCRequest{Method: r.GetMethod(), Params: r.GetParams()}
}
