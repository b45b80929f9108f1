package router_test

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/router"
)

// TestSmallPayload: with the smallest messages that the broker may be set to, a
// full batch still leaves.
func TestSmallPayload(t *testing.T) {
	srv := natstest.Server(t, func(c *natsembed.Config) { c.MaxPayload = 64 << 10 })
	start(t, srv.Deps(t, "r1", router.Role))
	var pubs []*message.Publication
	for range 4000 {
		pubs = append(pubs, event("log-p", strings.Repeat("x", 61)))
	}
	for i, r := range newPublisher(t, srv.Conns(t).Req).PublishWait(t.Context(), pubs) {
		if r.Err != nil {
			t.Fatalf("publication %d: %v", i, r.Err)
		}
	}
}
