package gateway

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// cgroupFiles hold the memory limit of the container that the process is in,
// as version 2 and version 1 of Linux's control groups name it.
var cgroupFiles = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// noLimit and more is how version 1 says that there is none.
const noLimit = 1 << 60

// memoryLimit is what the process may use in bytes: the runtime's limit
// (GOMEMLIMIT) or the smallest of those in files, 0 if there is none.
func memoryLimit(runtime int64, files ...string) int64 {
	if runtime < math.MaxInt64 {
		return runtime
	}
	limit := int64(noLimit)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // not on this system
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && n > 0 { // else "max"
			limit = min(limit, n)
		}
	}
	if limit == noLimit {
		return 0
	}
	return limit
}
