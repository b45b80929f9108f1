package router_test

import (
	"os"
	"testing"

	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/router"
)

// The log loses what was acknowledged last, as after a power failure, and so
// much is published at once that it is soon longer than before. Positions are
// given twice: that takes a new epoch all the same.
func TestSequencesAreGivenAgainAtOnce(t *testing.T) {
	var cfg natsembed.Config
	srv := natstest.Server(t, func(c *natsembed.Config) { cfg = *c })
	start(t, srv.Deps(t, "r1", router.Role))
	p := newPublisher(t, srv.Conns(t).Req, "r1")
	publish := func() (seq uint64, epoch string) {
		for {
			r := publishOne(t, p, event("log-back", "x"))
			if r.Err == nil {
				return r.Position.Seq(), r.Epoch
			}
		}
	}
	publish()
	srv.Stop()
	saved := t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	srv.Start()
	var had uint64
	var epoch string
	for range 20 {
		had, epoch = publish()
	}
	srv.Stop()
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(cfg.Dir, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	srv.Start()
	for reached := uint64(0); reached <= had; {
		seq, now := publish()
		if seq != 0 && seq <= had && now == epoch {
			t.Fatalf("position %d of epoch %s is given again", seq, epoch)
		}
		reached = max(reached, seq)
	}
	eventually(t, "a new epoch", func() bool { _, now := publish(); return now != epoch && now != "" })
}
