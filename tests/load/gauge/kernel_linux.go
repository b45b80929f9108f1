package gauge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kernel is what the machine's kernel holds: for sockets and much else, of
// all processes. Differences over a large number of connections tell what one
// costs; with clients on the same machine that is both ends.
type Kernel struct {
	Slab int64 // bytes of kernel objects: sockets, files, epoll entries
	TCP  int64 // bytes of TCP's send and receive buffers
}

// ReadKernel reads /proc/meminfo and /proc/net/sockstat.
func ReadKernel() (k Kernel, err error) {
	if k.Slab, err = numberAfter("/proc/meminfo", "Slab:"); err != nil {
		return k, err
	}
	k.Slab <<= 10
	if k.TCP, err = numberAfter("/proc/net/sockstat", "mem "); err != nil {
		return k, err
	}
	k.TCP *= int64(os.Getpagesize())
	return k, nil
}

// Available is how much memory the machine has left, in bytes.
func Available() (int64, error) {
	kb, err := numberAfter("/proc/meminfo", "MemAvailable:")
	return kb << 10, err
}

// numberAfter gives the number behind the first occurrence of a word.
func numberAfter(file, word string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(raw, []byte(word))
	fields := bytes.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("%s has no %q", file, word)
	}
	return strconv.ParseInt(string(fields[0]), 10, 64)
}

// ThreadCPU is the CPU time of the calling thread.
func ThreadCPU() (CPU, error) {
	const rusageThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		return CPU{}, fmt.Errorf("getrusage: %w", err)
	}
	return CPU{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}, nil
}

// Listening finds the process on this machine that listens on a TCP address,
// 0 if there is none that may be looked at.
func Listening(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, err
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		inode, err := listener(file, uint16(n))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		if inode != "" {
			return owner("socket:[" + inode + "]")
		}
	}
	return 0, nil
}

// listener gives the inode of the socket that listens on a port.
func listener(file string, port uint16) (inode string, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	const listens = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > 9 && f[3] == listens && strings.HasSuffix(f[1], suffix) {
			return f[9], nil
		}
	}
	return "", lines.Err()
}

// owner gives the process that has a socket open.
func owner(socket string) (int, error) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == socket {
			return strconv.Atoi(strings.Split(fd, "/")[2])
		}
	}
	return 0, nil
}
