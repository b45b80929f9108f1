package edge

import (
	"testing"
	"time"
)

// Every part of the window gets the same share, whatever the number of
// connections and the length of the window.
func TestDueIsEven(t *testing.T) {
	const buckets = 10
	for _, all := range []int{0, 1, 7, 200, 1_000_000, 100_000_000} {
		for _, window := range []time.Duration{0, time.Millisecond, 40 * time.Second, 24 * time.Hour} {
			if n := due(all, window, window); n != all {
				t.Errorf("of %d connections %d are due at the end of %s", all, n, window)
			}
			last := 0
			for i := 1; i <= buckets && window > 0; i++ {
				n := due(all, window*time.Duration(i)/buckets, window)
				if share := n - last; share < all/buckets-1 || share > all/buckets+2 {
					t.Errorf("bucket %d of %s has %d of %d connections", i, window, share, all)
				}
				last = n
			}
		}
	}
}
