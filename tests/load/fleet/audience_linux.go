package fleet

import (
	"time"

	"github.com/carillon-rt/carillon/tests/load/gauge"
)

// Churn has n connections leave and join a channel, in turns.
func (f *Fleet) Churn(n int) error {
	for range len(f.conns) {
		if n == 0 {
			break
		}
		if f.churn(f.churned) {
			n--
		}
		f.churned = (f.churned + 1) % len(f.conns)
	}
	return nil
}

// HangAll closes all connections without a word, as clients do that lose
// their network, and has them made anew.
func (f *Fleet) HangAll() error {
	for i := range f.conns {
		if c := &f.conns[i]; c.state == stateLive || c.state == stateDeaf {
			f.live--
			f.drop(i)
			if !f.plan.Again {
				f.again = append(f.again, int32(i))
			}
		}
	}
	return nil
}

// Busy is the CPU time of the calling thread, which has to be the fleet's.
func (f *Fleet) Busy() (time.Duration, error) {
	cpu, err := gauge.ThreadCPU()
	return cpu.Total(), err
}
