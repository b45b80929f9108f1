//go:build !linux

package load

import "errors"

var errLinux = errors.New("the load generator needs Linux: run it there, against a server anywhere")

// Run needs Linux.
func (r *Run) Run() error { return errLinux }

// Run needs Linux.
func (n Null) Run() error { return errLinux }

// Run needs Linux.
func (w Worker) Run() error { return errLinux }
