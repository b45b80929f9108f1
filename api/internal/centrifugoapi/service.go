package centrifugoapi

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/centrifugo/apipb"
)

// service answers the calls of gRPC. Whose they are is in their context.
type service struct {
	apipb.UnimplementedCentrifugoApiServer
	core    *Core
	metrics *metrics
	// roadRunner: see GRPCConfig.RoadRunnerDisconnect.
	roadRunner bool
}

var _ apipb.CentrifugoApiServer = (*service)(nil)

// answered is what a call returns besides a response that holds err, if there
// is one: nil, unless the caller wants gRPC's own statuses.
func (s *service) answered(ctx context.Context, err *Error) error {
	if err == nil {
		return nil
	}
	s.metrics.failed(err.Code)
	if callerOf(ctx).transportErrors {
		return status.Error(codeOf(err), err.Message)
	}
	return nil
}

// codeOf is the gRPC code of an error.
func codeOf(err *Error) codes.Code {
	switch {
	case err.absent:
		return codes.Unimplemented
	case err.Code >= codeApplication: // the application's own
		return codes.InvalidArgument
	}
	switch err.Code {
	case codeUnauthorized:
		return codes.Unauthenticated
	case codePermissionDenied:
		return codes.PermissionDenied
	case codeUnknownChannel, codeMethodNotFound:
		return codes.NotFound
	case codeBadRequest, codeNotAvailable:
		return codes.InvalidArgument
	case codeLimitExceeded, codeTooManyRequests:
		return codes.ResourceExhausted
	case codeUnrecoverable:
		return codes.OutOfRange
	case codeConflict:
		return codes.AlreadyExists
	}
	return codes.Internal
}

func (s *service) Publish(ctx context.Context, r *apipb.PublishRequest) (*apipb.PublishResponse, error) {
	res, err := publishPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.PublishResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Broadcast(ctx context.Context, r *apipb.BroadcastRequest) (*apipb.BroadcastResponse, error) {
	res, err := broadcastPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.BroadcastResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Subscribe(ctx context.Context, r *apipb.SubscribeRequest) (*apipb.SubscribeResponse, error) {
	res, err := subscribePB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.SubscribeResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Unsubscribe(ctx context.Context, r *apipb.UnsubscribeRequest) (*apipb.UnsubscribeResponse, error) {
	if d := s.misplaced(r); d != nil {
		_, err := disconnectPB(ctx, s.core, callerOf(ctx).app, d)
		return &apipb.UnsubscribeResponse{Error: errorPB(err)}, s.answered(ctx, err)
	}
	res, err := unsubscribePB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.UnsubscribeResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

// misplaced is the disconnect that an unsubscribe is if it was encoded as one:
// its channel is the user, and its user, if any, a Disconnect. Nil if it is
// what it says.
func (s *service) misplaced(r *apipb.UnsubscribeRequest) *apipb.DisconnectRequest {
	if !s.roadRunner || r.GetClient() != "" || r.GetAllUsers() || r.GetSession() != "" {
		return nil
	}
	out := &apipb.DisconnectRequest{User: r.GetChannel()}
	if r.GetUser() == "" {
		return out
	}
	// No user id begins with the control character that a field's tag is.
	out.Disconnect = &apipb.Disconnect{}
	if r.GetUser()[0] >= ' ' || proto.Unmarshal([]byte(r.GetUser()), out.GetDisconnect()) != nil {
		return nil
	}
	return out
}

func (s *service) Disconnect(ctx context.Context, r *apipb.DisconnectRequest) (*apipb.DisconnectResponse, error) {
	res, err := disconnectPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.DisconnectResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Refresh(ctx context.Context, r *apipb.RefreshRequest) (*apipb.RefreshResponse, error) {
	res, err := refreshPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.RefreshResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Presence(ctx context.Context, r *apipb.PresenceRequest) (*apipb.PresenceResponse, error) {
	res, err := presencePB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.PresenceResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) PresenceStats(ctx context.Context, r *apipb.PresenceStatsRequest) (*apipb.PresenceStatsResponse, error) {
	res, err := presenceStatsPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.PresenceStatsResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) History(ctx context.Context, r *apipb.HistoryRequest) (*apipb.HistoryResponse, error) {
	res, err := historyPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.HistoryResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) HistoryRemove(ctx context.Context, r *apipb.HistoryRemoveRequest) (*apipb.HistoryRemoveResponse, error) {
	res, err := historyRemovePB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.HistoryRemoveResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Info(ctx context.Context, r *apipb.InfoRequest) (*apipb.InfoResponse, error) {
	res, err := infoPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.InfoResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) RPC(ctx context.Context, r *apipb.RPCRequest) (*apipb.RPCResponse, error) {
	res, err := rpcPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.RPCResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Channels(ctx context.Context, r *apipb.ChannelsRequest) (*apipb.ChannelsResponse, error) {
	res, err := channelsPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.ChannelsResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

func (s *service) Connections(ctx context.Context, r *apipb.ConnectionsRequest) (*apipb.ConnectionsResponse, error) {
	res, err := connectionsPB(ctx, s.core, callerOf(ctx).app, r)
	return &apipb.ConnectionsResponse{Error: errorPB(err), Result: res}, s.answered(ctx, err)
}

// Batch has no error of its own in this protocol: one that concerns all of it
// is a status.
func (s *service) Batch(ctx context.Context, r *apipb.BatchRequest) (*apipb.BatchResponse, error) {
	a := callerOf(ctx).app
	out := &apipb.BatchResponse{Replies: make([]*apipb.Reply, len(r.GetCommands()))}
	commands := make([]command, len(out.Replies))
	for i, cmd := range r.GetCommands() {
		out.Replies[i] = &apipb.Reply{}
		commands[i] = func(ctx context.Context) (any, error) {
			return nil, errorOrNil(s.do(ctx, a, cmd, out.Replies[i]))
		}
	}
	replies, err := batch(ctx, commands, r.GetParallel())
	if err != nil {
		s.metrics.failed(err.Code)
		return nil, status.Error(codeOf(err), err.Message)
	}
	for i := range replies {
		if err := replies[i].err; err != nil {
			s.metrics.failed(err.Code)
			out.Replies[i] = &apipb.Reply{Error: errorPB(err)}
		}
	}
	return out, nil
}

func errorOrNil(err *Error) error {
	if err == nil {
		return nil
	}
	return err
}

// do runs the command of a batch and fills in its reply.
func (s *service) do(ctx context.Context, a *app.App, cmd *apipb.Command, out *apipb.Reply) (err *Error) {
	c := s.core
	switch {
	case cmd.GetPublish() != nil:
		out.Publish, err = publishPB(ctx, c, a, cmd.GetPublish())
	case cmd.GetBroadcast() != nil:
		out.Broadcast, err = broadcastPB(ctx, c, a, cmd.GetBroadcast())
	case cmd.GetSubscribe() != nil:
		out.Subscribe, err = subscribePB(ctx, c, a, cmd.GetSubscribe())
	case cmd.GetUnsubscribe() != nil:
		out.Unsubscribe, err = unsubscribePB(ctx, c, a, cmd.GetUnsubscribe())
	case cmd.GetDisconnect() != nil:
		out.Disconnect, err = disconnectPB(ctx, c, a, cmd.GetDisconnect())
	case cmd.GetPresence() != nil:
		out.Presence, err = presencePB(ctx, c, a, cmd.GetPresence())
	case cmd.GetPresenceStats() != nil:
		out.PresenceStats, err = presenceStatsPB(ctx, c, a, cmd.GetPresenceStats())
	case cmd.GetHistory() != nil:
		out.History, err = historyPB(ctx, c, a, cmd.GetHistory())
	case cmd.GetHistoryRemove() != nil:
		out.HistoryRemove, err = historyRemovePB(ctx, c, a, cmd.GetHistoryRemove())
	case cmd.GetInfo() != nil:
		out.Info, err = infoPB(ctx, c, a, cmd.GetInfo())
	case cmd.GetRpc() != nil:
		out.Rpc, err = rpcPB(ctx, c, a, cmd.GetRpc())
	case cmd.GetRefresh() != nil:
		out.Refresh, err = refreshPB(ctx, c, a, cmd.GetRefresh())
	case cmd.GetChannels() != nil:
		out.Channels, err = channelsPB(ctx, c, a, cmd.GetChannels())
	case cmd.GetConnections() != nil:
		out.Connections, err = connectionsPB(ctx, c, a, cmd.GetConnections())
	case unknownFields(cmd) != nil:
		err = notAvailable("this server does not have the method of the command")
	default:
		err = badRequest("the command has no method")
	}
	return err
}
