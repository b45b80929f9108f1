package e2e

import (
	"testing"

	"github.com/carillon-rt/carillon/tests/env"
)

func TestDemoPage(t *testing.T) {
	c := env.Start(t, env.Dev())
	run(t, "../sdk/node", []string{"CARILLON_DEMO=http://" + c.Gateways[0].Public() + "/"},
		"node", "--test", "--test-force-exit", "--test-reporter=spec", "demo.mjs")
}
