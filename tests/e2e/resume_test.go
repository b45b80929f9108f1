package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/tests/env"
)

// The plug-in of clients/pusher-resume in pusher-js; one of two gateways dies.
func TestResumePlugIn(t *testing.T) {
	c := env.Start(t, env.Apart(2))
	var pids []string
	for _, g := range c.Gateways {
		pids = append(pids, strconv.Itoa(g.PID()))
	}
	vars := append(environment(t, c, loopback.Addr(t)), "CARILLON_GATEWAY_PIDS="+strings.Join(pids, ","))
	run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "resume.failover.mjs")
}
