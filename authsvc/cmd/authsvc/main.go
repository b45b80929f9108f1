// Command authsvc runs the authorization service alone.
package main

import (
	"os"

	"github.com/carillon-rt/carillon/authsvc"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
)

type config struct {
	service.Common `yaml:",inline"`
	Auth           authsvc.Config `yaml:"authsvc"`
	Apps           []app.App      `yaml:"apps"`
}

func main() {
	cfg := config{Common: service.DefaultCommon(), Auth: authsvc.DefaultConfig()}
	os.Exit(service.Main("authsvc", os.Args[1:], &cfg, &cfg.Common, func(deps service.Deps) (service.Runner, error) {
		apps, err := app.NewRegistry(cfg.Apps)
		if err != nil {
			return nil, err
		}
		return authsvc.New(cfg.Auth, deps, apps)
	}))
}
