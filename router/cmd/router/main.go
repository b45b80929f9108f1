// Command router runs one channel router.
package main

import (
	"fmt"
	"os"

	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/router"
)

// settings is the router's configuration file.
type settings struct {
	service.Common `yaml:",inline"`
	Router         router.Config `yaml:"router"`
	Apps           []app.App     `yaml:"apps" doc:"tenants; the router needs no secrets"`
}

func main() {
	cfg := &settings{Common: service.DefaultCommon(), Router: router.DefaultConfig()}
	os.Exit(service.Main(router.Role, os.Args[1:], cfg, &cfg.Common, func(deps service.Deps) (service.Runner, error) {
		apps, err := app.NewRegistry(cfg.Apps)
		if err != nil {
			return nil, fmt.Errorf("apps: %w", err)
		}
		return router.New(cfg.Router, deps, apps.Public())
	}))
}
