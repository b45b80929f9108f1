package gateway

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "limit")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name    string
		runtime int64
		files   []string
		want    int64
	}{
		{"none", math.MaxInt64, nil, 0},
		{"no such file", math.MaxInt64, []string{"/nonexistent/limit"}, 0},
		{"unlimited, version 2", math.MaxInt64, []string{file("max\n")}, 0},
		{"unlimited, version 1", math.MaxInt64, []string{file("9223372036854771712\n")}, 0},
		{"container", math.MaxInt64, []string{"/nonexistent/limit", file("536870912\n")}, 512 << 20},
		{"garbage", math.MaxInt64, []string{file("a lot"), file("-1"), file("")}, 0},
		{"GOMEMLIMIT goes first", 256 << 20, []string{file("536870912\n")}, 256 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := memoryLimit(tt.runtime, tt.files...); got != tt.want {
				t.Errorf("limit is %d, want %d", got, tt.want)
			}
		})
	}
}
