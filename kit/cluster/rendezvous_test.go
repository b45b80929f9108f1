package cluster_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/kit/cluster"
)

func nodes(n int) []cluster.Member {
	ms := make([]cluster.Member, n)
	for i := range ms {
		ms[i] = cluster.Member{Node: fmt.Sprintf("carillon-router-%d", i), Incarnation: "1", Roles: []string{"router"}}
	}
	return ms
}

func TestOwnerIsBalanced(t *testing.T) {
	for _, n := range []int{2, 3, 5, 16} {
		const keys = 20_000
		counts := make(map[string]int)
		ms := nodes(n)
		for i := range keys {
			m, ok := cluster.Owner(ms, fmt.Sprintf("app/channel-%d", i))
			if !ok {
				t.Fatal("no owner")
			}
			counts[m.Node]++
		}
		for _, m := range ms {
			if share := float64(counts[m.Node]) * float64(n) / keys; share < 0.85 || share > 1.15 {
				t.Errorf("%d nodes: %s owns %.2f of its share", n, m.Node, share)
			}
		}
	}
}

func TestOwnerMovesLittle(t *testing.T) {
	before, after := nodes(5), nodes(6)
	for i := range 5000 {
		key := fmt.Sprint("k", i)
		a, _ := cluster.Owner(before, key)
		b, _ := cluster.Owner(after, key)
		if a.Node != b.Node && b.Node != after[5].Node {
			t.Fatalf("%s moved from %s to %s when %s came", key, a.Node, b.Node, after[5].Node)
		}
	}
}

func TestOwnerIgnoresOrderAndIncarnation(t *testing.T) {
	ms := nodes(7)
	other := slices.Clone(ms)
	slices.Reverse(other)
	for i := range other {
		other[i].Incarnation = "2"
	}
	for i := range 1000 {
		key := fmt.Sprint(i)
		a, _ := cluster.Owner(ms, key)
		b, _ := cluster.Owner(other, key)
		if a.Node != b.Node {
			t.Fatalf("%s: %s or %s", key, a.Node, b.Node)
		}
	}
}

// TestOwnerIsStable pins the function: nodes of different versions must agree.
func TestOwnerIsStable(t *testing.T) {
	pinned := map[string]string{
		"0": "carillon-router-3", "7": "carillon-router-2", "news": "carillon-router-4", "presence-room": "carillon-router-0",
	}
	for key, node := range pinned {
		if m, _ := cluster.Owner(nodes(8), key); m.Node != node {
			t.Errorf("owner of %q is %s, was %s", key, m.Node, node)
		}
	}
}

func TestOwners(t *testing.T) {
	ms := nodes(4)
	for i := range 200 {
		key := fmt.Sprint(i)
		owners := cluster.Owners(ms, key, 3)
		first, _ := cluster.Owner(ms, key)
		if len(owners) != 3 || owners[0].Node != first.Node {
			t.Fatalf("owners of %s: %v, first should be %s", key, owners, first.Node)
		}
		left := slices.DeleteFunc(slices.Clone(ms), func(m cluster.Member) bool { return m.Node == first.Node })
		if next, _ := cluster.Owner(left, key); next.Node != owners[1].Node {
			t.Fatalf("%s: when %s goes, %s follows, want the second owner %s", key, first.Node, next.Node, owners[1].Node)
		}
	}
	if got := cluster.Owners(ms, "k", 9); len(got) != 4 {
		t.Errorf("%d owners of four nodes", len(got))
	}
	if got := cluster.Owners(ms, "k", 0); got != nil {
		t.Errorf("owners of nothing: %v", got)
	}
	if _, ok := cluster.Owner(nil, "k"); ok {
		t.Error("nobody owns something")
	}
}

func TestOwnerNoAlloc(t *testing.T) {
	ms := nodes(16)
	if n := testing.AllocsPerRun(100, func() { cluster.Owner(ms, "news") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWithRole(t *testing.T) {
	ms := []cluster.Member{{Node: "a", Roles: []string{"x", "y"}}, {Node: "b", Roles: []string{"x"}}, {Node: "c"}}
	if got := cluster.WithRole(ms, "x"); len(got) != 2 || got[0].Node != "a" || got[1].Node != "b" {
		t.Errorf("with x: %v", got)
	}
	if got := cluster.WithRole(ms, "z"); len(got) != 0 {
		t.Errorf("with z: %v", got)
	}
}

func BenchmarkOwner(b *testing.B) {
	ms := nodes(5)
	for b.Loop() {
		cluster.Owner(ms, "presence-room.42")
	}
}
