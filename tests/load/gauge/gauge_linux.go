// Package gauge reads what a process of Linux uses, from outside: CPU and
// memory from /proc, goroutines and heap from its ops port.
package gauge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// CPU is the time that a process has used, with all its threads.
type CPU struct {
	User, System time.Duration
}

// Sub is c without before.
func (c CPU) Sub(before CPU) CPU { return CPU{c.User - before.User, c.System - before.System} }

// Total is user and system time together.
func (c CPU) Total() time.Duration { return c.User + c.System }

// ReadCPU reads the CPU time of a process, in steps of 10 ms.
func ReadCPU(pid int) (CPU, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return CPU{}, err
	}
	// The name, in brackets, may hold spaces. utime and stime are the 12th and
	// 13th fields after it.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 13 {
		return CPU{}, fmt.Errorf("/proc/%d/stat has too few fields: %q", pid, raw)
	}
	user, err := ticks(fields[11])
	if err != nil {
		return CPU{}, err
	}
	system, err := ticks(fields[12])
	return CPU{user, system}, err
}

func ticks(field []byte) (time.Duration, error) {
	n, err := strconv.ParseInt(string(field), 10, 64)
	return time.Duration(n) * time.Second / ticksPerSecond, err
}

// ReadRSS reads the resident memory of a process, in bytes.
func ReadRSS(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, " kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// get reads a page of an ops port without leaving a connection behind.
func get(ctx context.Context, url string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return body, err
}

// Goroutines asks an ops port how many goroutines its process has.
func Goroutines(ctx context.Context, ops string) (int, error) {
	page, err := get(ctx, "http://"+ops+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(string(page), "goroutine profile: total %d", &n); err != nil {
		return 0, fmt.Errorf("%s: the goroutine profile does not begin as expected: %w", ops, err)
	}
	return n, nil
}

// Heap is what a Go process holds for its objects.
type Heap struct {
	Live  int64 // bytes of objects that are alive
	Inuse int64 // bytes of spans that hold them
	Stack int64 // bytes of stacks
}

// ReadHeap has a process collect its garbage and asks what is left.
func ReadHeap(ctx context.Context, ops string) (Heap, error) {
	page, err := get(ctx, "http://"+ops+"/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return Heap{}, err
	}
	var h Heap
	lines := bufio.NewScanner(bytes.NewReader(page))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for prefix, field := range map[string]*int64{"# HeapAlloc = ": &h.Live, "# HeapInuse = ": &h.Inuse, "# Stack = ": &h.Stack} {
			if value, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				value, _, _ = strings.Cut(value, " ")
				if *field, err = strconv.ParseInt(value, 10, 64); err != nil {
					return Heap{}, err
				}
			}
		}
	}
	if h.Live == 0 {
		return Heap{}, fmt.Errorf("%s: the heap profile has no HeapAlloc", ops)
	}
	return h, lines.Err()
}

// Save writes a page of an ops port, such as a profile, into a file.
func Save(ctx context.Context, url, file string) error {
	page, err := get(ctx, url)
	if err != nil {
		return err
	}
	return os.WriteFile(file, page, 0o644)
}
