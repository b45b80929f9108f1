package tagfilter

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/proto/message"
)

func TestMatch(t *testing.T) {
	tags := []message.Tag{{Key: "team", Value: "red"}, {Key: "n", Value: "42"}, {Key: "big", Value: "9007199254740993"}, {Key: "empty", Value: ""}}
	leaf := func(key, cmp, val string, vals ...string) Node { return Node{Key: key, Cmp: cmp, Val: val, Vals: vals} }
	yes, no := leaf("team", "ex", ""), leaf("team", "nex", "")
	for _, c := range []struct {
		node Node
		want bool
	}{
		{leaf("team", "eq", "red"), true},
		{leaf("team", "eq", "blue"), false},
		{leaf("none", "eq", ""), false},
		{leaf("team", "neq", "blue"), true},
		{leaf("none", "neq", "blue"), true},
		{leaf("team", "neq", "red"), false},
		{leaf("team", "in", "", "blue", "red"), true},
		{leaf("none", "in", "", ""), false},
		{leaf("team", "nin", "", "blue"), true},
		{leaf("none", "nin", "", "blue"), true},
		{leaf("team", "nin", "", "red"), false},
		{leaf("empty", "ex", ""), true},
		{leaf("none", "ex", ""), false},
		{leaf("none", "nex", ""), true},
		{leaf("team", "sw", "re"), true},
		{leaf("team", "sw", "ed"), false},
		{leaf("team", "ew", "ed"), true},
		{leaf("team", "ew", "re"), false},
		{leaf("team", "ct", "e"), true},
		{leaf("none", "ct", ""), false},
		{leaf("n", "gt", "5"), true},
		{leaf("n", "gte", "42.0"), true},
		{leaf("n", "lt", "42"), false},
		{leaf("n", "lte", "42"), true},
		{leaf("n", "lt", "1e3"), true},
		{leaf("big", "gt", "9007199254740992"), true},
		{leaf("team", "lt", "1"), false},
		{leaf("none", "lt", "1"), false},
		{Node{Op: "and", Nodes: []Node{yes, yes}}, true},
		{Node{Op: "and", Nodes: []Node{yes, no}}, false},
		{Node{Op: "or", Nodes: []Node{no, yes}}, true},
		{Node{Op: "or", Nodes: []Node{no, no}}, false},
		{Node{Op: "not", Nodes: []Node{no}}, true},
		{Node{Op: "not", Nodes: []Node{{Op: "or", Nodes: []Node{no, yes}}}}, false},
	} {
		f, err := New(&c.node)
		if err != nil {
			t.Errorf("%+v: %v", c.node, err)
			continue
		}
		if got := f.Match(tags); got != c.want {
			t.Errorf("%+v: %v, want %v", c.node, got, c.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	many := Node{Op: "or"}
	for range nodesMax {
		many.Nodes = append(many.Nodes, Node{Key: "a", Cmp: "ex"})
	}
	for says, n := range map[string]Node{
		"want eq, neq":     {Key: "a", Cmp: "like"},
		"no key":           {Cmp: "ex"},
		"need an op":       {Key: "a", Cmp: "ex", Nodes: []Node{{Key: "b", Cmp: "ex"}}},
		"want a number":    {Key: "a", Cmp: "lt", Val: "x"},
		"has no nodes":     {Op: "and"},
		"want one":         {Op: "not"},
		"want and, or":     {Op: "xor"},
		"more than 64":     many,
		"bytes, at most":   {Key: "a", Cmp: "eq", Val: strings.Repeat("x", bytesMax)},
		`cmp is ""`:        {Op: "and", Nodes: []Node{{Key: "a"}}},
		"op not has 2 nod": {Op: "not", Nodes: []Node{{Key: "a", Cmp: "ex"}, {Key: "a", Cmp: "ex"}}},
	} {
		if f, err := New(&n); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, %v; want an error with %q", n, f, err, says)
		}
	}
}

func TestName(t *testing.T) {
	a := Node{Key: "a", Cmp: "in", Vals: []string{"b", "c"}}
	b := Node{Key: "a", Cmp: "in", Vals: []string{`b","c`}}
	fa, _ := New(&a)
	again, _ := New(&Node{Key: "a", Cmp: "in", Vals: []string{"b", "c"}})
	fb, _ := New(&b)
	if fa.Name() != again.Name() || fa.Name() == fb.Name() {
		t.Errorf("%s, %s, %s", fa.Name(), again.Name(), fb.Name())
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	f, err := New(&Node{Op: "and", Nodes: []Node{{Key: "a", Cmp: "in", Vals: []string{"x", "y"}}, {Op: "not", Nodes: []Node{{Key: "n", Cmp: "lt", Val: "5"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	tags := []message.Tag{{Key: "a", Value: "y"}, {Key: "n", Value: "7"}}
	if n := testing.AllocsPerRun(100, func() { f.Match(tags) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
