//go:build !linux

package cli

import "syscall"

// ownGroup keeps ^C of the terminal from the nodes: the cluster tells them to stop.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
