package cluster

import "slices"

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// hash is FNV-1a with a finalizer: FNV alone leaves the high bits of short names almost constant.
func hash(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return mix(h)
}

// mix is a 64-bit finalizer: every input bit reaches every output bit.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// weight depends on the node's name alone, so that a restart of a node moves nothing.
func weight(node string, key uint64) uint64 { return mix(hash(node) ^ key) }

// heavier orders members by weight; the name decides the improbable tie, the same way everywhere.
func heavier(a Member, wa uint64, b Member, wb uint64) bool {
	if wa != wb {
		return wa > wb
	}
	return a.Node < b.Node
}

// Owner returns the member that owns key: the one with the highest random weight, so that a member that comes or goes
// moves only its own keys. All nodes that see the same members agree. ok is false when there are no members.
func Owner(ms []Member, key string) (owner Member, ok bool) {
	if len(ms) == 0 {
		return Member{}, false
	}
	k := hash(key)
	best, bestWeight := 0, weight(ms[0].Node, k)
	for i := 1; i < len(ms); i++ {
		if w := weight(ms[i].Node, k); heavier(ms[i], w, ms[best], bestWeight) {
			best, bestWeight = i, w
		}
	}
	return ms[best], true
}

// Owners returns the n heaviest members for key, the owner first; fewer when there are not so many.
func Owners(ms []Member, key string, n int) []Member {
	if n <= 0 || len(ms) == 0 {
		return nil
	}
	type weighed struct {
		Member
		w uint64
	}
	k := hash(key)
	all := make([]weighed, len(ms))
	for i, m := range ms {
		all[i] = weighed{m, weight(m.Node, k)}
	}
	slices.SortFunc(all, func(a, b weighed) int {
		if heavier(a.Member, a.w, b.Member, b.w) {
			return -1
		}
		return 1
	})
	out := make([]Member, 0, min(n, len(all)))
	for _, m := range all[:min(n, len(all))] {
		out = append(out, m.Member)
	}
	return out
}
