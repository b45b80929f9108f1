package crew

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/carillon-rt/carillon/tests/load/fleet"
)

// board is memory that the crew shares: a row for each worker, which it alone
// writes.
type board struct {
	path string
	mem  []byte
}

// row is how far a worker has come.
type row struct {
	begun, joined, refused, lost      atomic.Int64
	subscribed, unsubscribed          atomic.Int64
	delivered, liveNow, connectedFlag atomic.Int64
	_                                 [7]int64 // keeps rows off each other's cache lines
}

const boardBytes = WorkersMax * int(unsafe.Sizeof(row{}))

// newBoard makes the memory, in a file that is removed with it.
func newBoard() (*board, error) {
	f, err := os.CreateTemp("", "carillon-bench-")
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(int64(boardBytes)), f.Close())
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return openBoard(f.Name())
}

func openBoard(path string) (*board, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := syscall.Mmap(int(f.Fd()), 0, boardBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &board{path, mem}, nil
}

func (b *board) row(i int) *row {
	return (*row)(unsafe.Pointer(&b.mem[i*int(unsafe.Sizeof(row{}))]))
}

func (b *board) unmap() error { return syscall.Munmap(b.mem) }

func (b *board) remove() error { return errors.Join(b.unmap(), os.Remove(b.path)) }

// write publishes how far a fleet has come.
func (r *row) write(f *fleet.Fleet) {
	c := f.Counts()
	r.begun.Store(c.Begun)
	r.joined.Store(c.Joined)
	r.refused.Store(c.Refused)
	r.lost.Store(c.Lost)
	r.subscribed.Store(c.Subscribed)
	r.unsubscribed.Store(c.Unsubscribed)
	r.delivered.Store(c.Delivered)
	r.liveNow.Store(int64(f.Live()))
	connected := int64(0)
	if f.Connected() {
		connected = 1
	}
	r.connectedFlag.Store(connected)
}

func (r *row) counts() fleet.Counts {
	return fleet.Counts{
		Begun: r.begun.Load(), Joined: r.joined.Load(), Refused: r.refused.Load(), Lost: r.lost.Load(),
		Subscribed: r.subscribed.Load(), Unsubscribed: r.unsubscribed.Load(), Delivered: r.delivered.Load(),
	}
}

func (r *row) live() int       { return int(r.liveNow.Load()) }
func (r *row) connected() bool { return r.connectedFlag.Load() == 1 }
