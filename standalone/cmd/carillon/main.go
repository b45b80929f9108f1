// Command carillon is the whole platform in one binary: it runs a node with all services or some of them, and holds small tools for
// who operates or builds on one.
package main

import (
	"context"
	"os"

	"github.com/carillon-rt/carillon/standalone/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
