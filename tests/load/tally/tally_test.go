package tally_test

import (
	"testing"

	"github.com/carillon-rt/carillon/tests/load/tally"
)

func TestStream(t *testing.T) {
	for _, c := range []struct {
		name      string
		came      []uint32
		published uint32
		want      tally.Counts
	}{
		{"all in order", []uint32{1, 2, 3}, 3, tally.Counts{Delivered: 3}},
		{"nothing came", nil, 3, tally.Counts{Missing: 3}},
		{"the first is missing", []uint32{2, 3}, 3, tally.Counts{Delivered: 2, Missing: 1}},
		{"the end is missing", []uint32{1}, 3, tally.Counts{Delivered: 1, Missing: 2}},
		{"a hole", []uint32{1, 4}, 4, tally.Counts{Delivered: 2, Missing: 2}},
		{"one too late", []uint32{1, 3, 2, 4}, 4, tally.Counts{Delivered: 4, Disordered: 1}},
		{"one twice", []uint32{1, 2, 2, 3, 1}, 3, tally.Counts{Delivered: 5, Duplicates: 2}},
		{"a late one twice", []uint32{1, 3, 2, 2}, 3, tally.Counts{Delivered: 4, Disordered: 1, Duplicates: 1}},
		{"a large hole", []uint32{1, 1000}, 1000, tally.Counts{Delivered: 2, Missing: 998}},
		{"behind by too much", []uint32{1, 1000, 2}, 1000, tally.Counts{Delivered: 3, Missing: 998, Disordered: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s tally.Stream
			var got tally.Counts
			for _, seq := range c.came {
				s.Next(seq, &got)
			}
			s.End(c.published, &got)
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if got.Clean() != (c.want.Missing+c.want.Duplicates+c.want.Disordered == 0) {
				t.Errorf("clean is %v for %+v", got.Clean(), got)
			}
		})
	}
}
