package env

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// SmallDisk gives the embedded NATS server a disk of 16 MiB, half of which a
// file takes that FreeDisk removes. It is for one process with everything, and
// for Linux: the disk is in a mount namespace of the process.
func SmallDisk() Option { return func(c *config) { c.smallDisk = true } }

func (c *Cluster) disk(dir string) string {
	c.t.Helper()
	disk := filepath.Join(dir, "disk")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		c.t.Fatal(err)
	}
	return disk
}

// onSmallDisk has the command run where dir is a small disk.
func onSmallDisk(cmd *exec.Cmd, dir string) *exec.Cmd {
	const script = `mount -t tmpfs -o size=16m tmpfs "$0" && head -c 8m /dev/zero > "$0/ballast" && exec "$@"`
	within := exec.Command("unshare", append([]string{"--mount", "--map-root-user", "sh", "-c", script, dir}, cmd.Args...)...)
	within.Env, within.SysProcAttr = cmd.Env, cmd.SysProcAttr
	return within
}

// FreeDisk makes room on a SmallDisk.
func (n *Node) FreeDisk() {
	n.t.Helper()
	dir := filepath.Dir(n.addresses)
	if err := os.Remove(fmt.Sprintf("/proc/%d/root%s/disk/ballast", n.PID(), dir)); err != nil {
		n.t.Fatal(err)
	}
}
