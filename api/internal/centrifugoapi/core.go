// Package centrifugoapi serves the server API of Centrifugo (v6) over HTTP and
// gRPC: what a backend publishes, asks and orders. The core makes calls on the
// cluster of requests, whichever way they came; http.go and grpc.go only read
// and write them. It knows nothing of how publications are stored, presence is
// kept or gateways reach clients.
package centrifugoapi

import (
	"context"
	"log/slog"
	"time"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Limits of one request. They are answered with error 106.
const (
	// BroadcastMax is the channels of a broadcast, BatchMax the commands of a
	// batch.
	BroadcastMax = 10_000
	BatchMax     = 1_000
	// ChannelsMax is the channels of one answer, HistoryMax the publications.
	ChannelsMax = 20_000
	HistoryMax  = 10_000
	// atOnce is how many commands of a parallel batch run at a time.
	atOnce = 16
	// batchTime is how long the commands of a batch may take together.
	batchTime = 30 * time.Second
)

// Sender publishes. Its errors are those of proto/publisher.
type Sender interface {
	PublishWait(ctx context.Context, pubs []*message.Publication) []publisher.Receipt
}

// Reader reads channels. A read fails with occupancy.ErrUnavailable when
// nobody answers now.
type Reader interface {
	Channel(ctx context.Context, app, name string, members bool) (info presence.ChannelInfo, incomplete bool, err error)
	Page(ctx context.Context, app string, q occupancy.ListQuery) (infos []presence.ChannelInfo, more, incomplete bool, err error)
	History(ctx context.Context, app, name string, q occupancy.HistoryQuery) (occupancy.Past, error)
	// Saw is told what was stored: reads are to find it.
	Saw(app, name, epoch string, at message.Position)
}

// Fleet is the gateways. Its errors may be fleet.ErrUnreachable.
type Fleet interface {
	Tell(ctx context.Context, cmd control.Command) error
	Connections(ctx context.Context, app string, of control.Select) (list []control.Connection, cut bool, err error)
	Nodes(ctx context.Context, app string) ([]fleet.Node, error)
}

// Caller calls the hooks of an app.
type Caller interface {
	RPC(ctx context.Context, call authz.RPC) (authz.Decision, error)
}

var (
	_ Reader = (*occupancy.Reader)(nil)
	_ Fleet  = (*fleet.Fleet)(nil)
	_ Sender = (*publisher.Publisher)(nil)
)

// Deps are what a Core works with.
type Deps struct {
	Sender Sender
	Reader Reader
	Fleet  Fleet
	Hooks  Caller
	Rates  *rate.Limits
	Log    *slog.Logger
	Now    func() time.Time
}

// Core answers requests. It may be used by any goroutine.
type Core struct{ deps Deps }

// New returns a core.
func New(deps Deps) *Core { return &Core{deps} }

// checkChannel checks a channel's name, and that the app knows its namespace.
func checkChannel(a *app.App, name string) (app.Effective, *Error) {
	if err := channel.Validate(name); err != nil {
		return app.Effective{}, badRequest("channel: %v", err)
	}
	if isInternal(name) {
		return app.Effective{}, badRequest("channel %q is reserved: names that begin with %s are the cluster's own", name, channel.OnlinePrefix)
	}
	e := a.Effective(name)
	if a.UnknownNamespace(name, e) {
		return e, refuse(codeUnknownChannel, "unknown channel: no policy of app %s matches %q", a.ID, name)
	}
	return e, nil
}
