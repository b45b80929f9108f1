package rate

import (
	"testing"
	"time"
)

func TestSeconds(t *testing.T) {
	for wait, want := range map[time.Duration]int{
		time.Millisecond: 1, time.Second: 1, time.Second + 1: 2, 4100 * time.Millisecond: 5,
	} {
		if got := Seconds(wait); got != want {
			t.Errorf("%s is %d s, want %d", wait, got, want)
		}
	}
}
