package cli

import (
	"io"
	"os/exec"
	"testing"
)

// Who kills a node is told that once, and not that it has ended by itself.
func TestKilledNodeHasNotEndedByItself(t *testing.T) {
	cl := &devCluster{out: io.Discard, ended: make(chan *devNode, 1)}
	for range 20 {
		n := &devNode{name: "node-1"}
		process := exec.Command("sleep", "60")
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		cl.follow(n, process)
		if err := cl.kill(n); err != nil {
			t.Fatal(err)
		}
		if len(cl.ended) > 0 {
			t.Fatal("it is said to have ended by itself")
		}
	}
}
