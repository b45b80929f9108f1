package cli

import "syscall"

// ownGroup keeps ^C of the terminal from the nodes: the cluster tells them to stop. One that is killed takes them with it.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
