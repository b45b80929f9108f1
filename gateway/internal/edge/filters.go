package edge

import (
	"math"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
)

// filters are those of a loop's subscriptions: the subscribers of a channel
// that have the same one are a group.
type filters struct {
	byName map[string]uint16
	all    []filterUse // by number - 1
	free   []uint16    // numbers that nobody uses
}

type filterUse struct {
	*tagfilter.Filter
	uses int
}

// use gives the number of a filter, 0 for none; ok is false if there are too
// many. Each use is taken back by leave.
func (f *filters) use(filter *tagfilter.Filter) (number uint16, ok bool) {
	if filter == nil {
		return 0, true
	}
	if number, ok = f.byName[filter.Name()]; ok {
		f.all[number-1].uses++
		return number, true
	}
	switch n := len(f.free); {
	case n > 0:
		number, f.free = f.free[n-1], f.free[:n-1]
	case len(f.all) == math.MaxUint16:
		return 0, false
	default:
		f.all = append(f.all, filterUse{})
		number = uint16(len(f.all))
	}
	if f.byName == nil {
		f.byName = map[string]uint16{}
	}
	f.byName[filter.Name()] = number
	f.all[number-1] = filterUse{filter, 1}
	return number, true
}

func (f *filters) leave(number uint16) {
	u := &f.all[number-1]
	if u.uses--; u.uses > 0 {
		return
	}
	delete(f.byName, u.Name())
	*u = filterUse{}
	f.free = append(f.free, number)
}

// of gives what the subscribers of a group want.
func (f *filters) of(kind hub.Kind) wish {
	if n := kind.Number(); n != 0 {
		return wish{f.all[n-1].Filter}
	}
	return wish{}
}

// wish is what subscribers want.
type wish struct{ filter *tagfilter.Filter }

// wanted gives those of a turn that they want: of publications those that the
// filter matches, and all else.
func (w wish) wanted(turn []*hub.Delivery) []*hub.Delivery {
	if w.filter == nil {
		return turn
	}
	some := make([]*hub.Delivery, 0, len(turn))
	for _, d := range turn {
		if !d.IsPublication() || w.filter.Match(d.Tags) {
			some = append(some, d)
		}
	}
	return some
}

// past gives those of a channel's past that they want.
func (w wish) past(entries []resume.Entry) []resume.Entry {
	if w.filter == nil {
		return entries
	}
	some := make([]resume.Entry, 0, len(entries))
	for _, e := range entries {
		if w.filter.Match(tagfilter.Tags(e.Publication)) {
			some = append(some, e)
		}
	}
	return some
}
