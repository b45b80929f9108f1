package hub

import (
	"fmt"
	"testing"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// BenchmarkUnsubscribeFloored: everybody leaves a channel with a cached value
// of which nothing was published since they came.
func BenchmarkUnsubscribeFloored(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				t := NewTable()
				for slot := range int32(n) {
					t.Add(key(1), slot, 0, Floor{Position: message.At(1, 0)})
				}
				b.StartTimer()
				for slot := range int32(n) {
					t.RemoveAll(slot, func(channel.Key) {})
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/subscriber")
		})
	}
}
