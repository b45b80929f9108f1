package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := &report{}
	for _, v := range []float64{3, 1, 2} {
		r.add("s", "kept", "x", v).budget(2)
	}
	for _, v := range []float64{4, 2} {
		r.add("s", "exceeded", "us", v).budget(2.5)
	}
	r.add("s", "free", "us", 1e9)
	x := r.rows[0]
	if x.Median != 2 || x.Min != 1 || x.Max != 3 {
		t.Errorf("median %g, min %g, max %g of 3, 1, 2", x.Median, x.Min, x.Max)
	}
	err := r.check()
	if err == nil || !strings.Contains(err.Error(), "exceeded is 3 us, the budget is 2.5") || strings.Contains(err.Error(), "kept") {
		t.Errorf("check says %v", err)
	}
	var out strings.Builder
	r.print(&out)
	if got := strings.Count(out.String(), "EXCEEDED"); got != 1 {
		t.Errorf("%d rows are marked as exceeded:\n%s", got, out.String())
	}
}
