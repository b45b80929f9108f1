// Command api runs the API service alone.
package main

import (
	"context"
	"os"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/cluster"
)

type config struct {
	service.Common `yaml:",inline"`
	API            api.Config `yaml:"api"`
	Apps           []app.App  `yaml:"apps"`
}

func main() {
	cfg := config{Common: service.DefaultCommon(), API: api.DefaultConfig()}
	os.Exit(service.Main("api", os.Args[1:], &cfg, &cfg.Common, func(deps service.Deps) (service.Runner, error) {
		apps, err := app.NewRegistry(cfg.Apps)
		if err != nil {
			return nil, err
		}
		if cfg.API.Partitions, err = cluster.AwaitPartitions(context.Background(), deps.NATS.Req); err != nil {
			return nil, err
		}
		return api.New(cfg.API, deps, apps)
	}))
}

// partitions waits until a router has decided the cluster's partition count.
