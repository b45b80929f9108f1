// Command gateway runs one gateway.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/carillon-rt/carillon/gateway"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/cluster"
)

// settings is the gateway's configuration file.
type settings struct {
	service.Common `yaml:",inline"`
	Gateway        gateway.Config `yaml:"gateway"`
	Apps           []app.App      `yaml:"apps" doc:"tenants; the gateway needs no secrets"`
}

func main() {
	cfg := &settings{Common: service.DefaultCommon(), Gateway: gateway.DefaultConfig()}
	os.Exit(service.Main(gateway.Role, os.Args[1:], cfg, &cfg.Common, func(deps service.Deps) (service.Runner, error) {
		apps, err := app.NewRegistry(cfg.Apps)
		if err != nil {
			return nil, fmt.Errorf("apps: %w", err)
		}
		if cfg.Gateway.Partitions, err = cluster.AwaitPartitions(context.Background(), deps.NATS.Req); err != nil {
			return nil, err
		}
		return gateway.New(cfg.Gateway, deps, apps.Public(), gateway.Options{})
	}))
}
