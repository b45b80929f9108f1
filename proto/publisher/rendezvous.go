package publisher

import "strconv"

// Preferred is the router that publishers of partition p agree on: the one
// with the highest random weight, so that a router that comes or goes moves
// only its own partitions. "" when there are no routers.
func Preferred(routers []string, p int) string {
	key := fnv(14695981039346656037, "partition/"+strconv.Itoa(p))
	best, bestWeight := "", uint64(0)
	for _, node := range routers {
		w := mix(fnv(key, node))
		if best == "" || w > bestWeight || (w == bestWeight && node < best) {
			best, bestWeight = node, w
		}
	}
	return best
}

func fnv(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix finishes the hash: FNV alone leaves the high bits of short names almost
// constant.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
