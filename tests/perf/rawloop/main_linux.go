// Command rawloop is package null as a process of its own: the denominator of
// the measurements, in Go. c/rawloop.c does the same in C.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/carillon-rt/carillon/tests/load/null"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "IPv4 loopback `address`")
	slow := flag.Int("slow", 0, "`bytes` that are kept for a client that does not read; 0 is to end when there is one")
	ping := flag.Int("ping", 0, "`seconds` from ping to ping of a connection; 0 is never")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "rawloop: %q: want -listen, -ping and -slow only\n", flag.Args())
		os.Exit(2)
	}
	if err := null.Run(*listen, *slow, *ping, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rawloop:", err)
		os.Exit(1)
	}
}
