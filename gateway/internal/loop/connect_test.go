//go:build linux

package loop

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
)

// BenchmarkConnect measures what a connection costs the loop's thread, from
// accepting it to the answered upgrade.
func BenchmarkConnect(b *testing.B) {
	const conns = 4000
	s := serve(b, Config{}, &script{})
	onLoop := func() (cpu time.Duration) {
		s.on(func() { cpu = threadCPU() })
		return cpu
	}
	for range b.N {
		before, began := onLoop(), time.Now()
		clients := openBare(b, s.listener.Addr(), conns)
		b.ReportMetric(float64((onLoop()-before).Nanoseconds())/1000/conns, "loop-us/connect")
		b.ReportMetric(conns/time.Since(began).Seconds(), "connects/s")
		b.StopTimer()
		clients.close()
		await.True(b, "all are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
		b.StartTimer()
	}
}
