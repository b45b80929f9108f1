package env

import (
	"bufio"
	order "encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// socketOf finds the end of a TCP connection over IPv4 that has this local
// address, as the links in a process's fd folder name it; "" if it is gone
// (proc(5), /proc/net/tcp).
func socketOf(local, remote net.Addr) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	want := [2]string{procAddr(local), procAddr(remote)}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		const inode = 9
		fields := strings.Fields(lines.Text())
		if len(fields) > inode && fields[1] == want[0] && fields[2] == want[1] {
			return "socket:[" + fields[inode] + "]"
		}
	}
	return ""
}

// procAddr writes an address as the system does: the bytes of the IP as a
// number of this machine, and the port, in hex.
func procAddr(a net.Addr) string {
	at, ok := a.(*net.TCPAddr)
	if !ok || at.IP.To4() == nil {
		return ""
	}
	return fmt.Sprintf("%08X:%04X", order.NativeEndian.Uint32(at.IP.To4()), at.Port)
}

// hasOpen says whether a process has this socket.
func hasOpen(process int, socket string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", process)
	files, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == socket {
			return true
		}
	}
	return false
}
