package main

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// bench stands in for a test where package env wants one: it runs outside of
// go test.
type bench struct {
	testing.TB // for its private method; what env uses is below
	ctx        context.Context
	verbose    bool
	cleanups   []func()
	failed     bool
}

// fatal is what Fatalf panics with.
type fatal string

func (b *bench) Helper()                  {}
func (b *bench) Name() string             { return "bench" }
func (b *bench) Failed() bool             { return b.failed }
func (b *bench) Context() context.Context { return b.ctx }
func (b *bench) Cleanup(f func())         { b.cleanups = append(b.cleanups, f) }

func (b *bench) Fatal(args ...any) { panic(fatal(fmt.Sprint(args...))) }

func (b *bench) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }

func (b *bench) Errorf(format string, args ...any) {
	b.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (b *bench) Logf(format string, args ...any) {
	if b.verbose || b.failed {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "carillon-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) }) // files of a process that has ended
	return dir
}

// section runs f and then the cleanups that were registered in it. It
// returns what f failed with.
func (b *bench) section(f func() error) (err error) {
	before := b.cleanups
	b.cleanups = nil
	defer func() {
		for i := len(b.cleanups) - 1; i >= 0; i-- {
			b.cleanups[i]()
		}
		b.cleanups = before
	}()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fatal:
			err = fmt.Errorf("%s", string(p))
		default:
			panic(p)
		}
		b.failed = b.failed || err != nil
	}()
	return f()
}
