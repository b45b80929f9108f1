// Command presence runs a presence node alone.
package main

import (
	"os"

	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
)

type config struct {
	service.Common `yaml:",inline"`
	Presence       presence.Config `yaml:"presence"`
	Apps           []app.App       `yaml:"apps"`
}

func main() {
	cfg := config{Common: service.DefaultCommon(), Presence: presence.DefaultConfig()}
	os.Exit(service.Main("presence", os.Args[1:], &cfg, &cfg.Common, func(deps service.Deps) (service.Runner, error) {
		apps, err := app.NewRegistry(cfg.Apps)
		if err != nil {
			return nil, err
		}
		return presence.New(cfg.Presence, deps, apps.Public())
	}))
}
