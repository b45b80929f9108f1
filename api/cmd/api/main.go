// Command api runs the API service alone.
package main

import (
	"context"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
		if cfg.API.Partitions, err = partitions(deps); err != nil {
			return nil, err
		}
		return api.New(cfg.API, deps, apps)
	}))
}

// partitions waits until a router has decided the cluster's partition count.
func partitions(deps service.Deps) (int, error) {
	js, err := jetstream.New(deps.NATS.Req)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return cluster.Partitions(ctx, js, 0)
}
