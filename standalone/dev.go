package standalone

import (
	"log/slog"
	"net"
	"time"

	"github.com/carillon-rt/carillon/gateway"
	"github.com/carillon-rt/carillon/proto/app"
)

// devDrain is enough for clients on this host to be told.
const devDrain = 500 * time.Millisecond

// DevApp is the app of --dev. Its secret is public: it must not be used elsewhere.
func DevApp() app.App {
	return app.App{
		ID: "1001", Name: "development", Keys: []app.Key{{Key: "carillon-dev-key", Secret: "carillon-dev-secret"}},
		ClientEvents: true, SubscriptionCount: true, Watchlist: true,
	}
}

// DefaultDevConfig is DefaultConfig with DevApp and the demo page, reachable from this host only, and logs for people.
func DefaultDevConfig() Config {
	cfg := DefaultConfig()
	cfg.Apps = []app.App{DevApp()}
	cfg.Dev = DevConfig{Page: true, TemporaryData: true}
	cfg.Gateway.Listen = net.JoinHostPort("127.0.0.1", PublicPort)
	cfg.Ops.Listen = net.JoinHostPort("127.0.0.1", OpsPort)
	cfg.Gateway.Drain = gateway.DrainConfig{Window: devDrain, Slack: devDrain} // nobody waits at ^C
	cfg.Log.Level, cfg.Log.Format = slog.LevelInfo, "text"
	return cfg
}
