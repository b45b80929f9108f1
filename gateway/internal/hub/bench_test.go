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
					t.RemoveAll(slot, func(channel.Key, Kind) {})
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/subscriber")
		})
	}
}

// BenchmarkDeliver is what a publication costs on its way to the mailboxes,
// its frame aside.
func BenchmarkDeliver(b *testing.B) {
	in := NewInterest(Config{
		Loops: 2, Partitions: 1, Room: func() {}, Post: func(int, *Delivery) {},
		Encodings: []Encoding{fixed("frame")},
	})
	wanted := &message.Publication{App: key(1).App, Channel: key(1).Name}
	for l := range 2 {
		in.Register(key(1), l, 0, none)
	}
	b.Run("wanted", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			in.Deliver(0, 0, wanted)
		}
	})
	b.Run("unwanted", func(b *testing.B) {
		other := &message.Publication{App: key(1).App, Channel: key(2).Name}
		b.ReportAllocs()
		for b.Loop() {
			in.Deliver(0, 0, other)
		}
	})
}

// fixed is an encoding with one frame for everything.
type fixed []byte

func (f fixed) AppendFrame([]byte, message.Position, *message.Publication) []byte { return f }
