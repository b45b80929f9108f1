package centrifugo

import (
	"maps"
	"strings"
	"testing"
)

func TestEmulatedHeaders(t *testing.T) {
	long := strings.Repeat("x", headerBytesMax-len("b"))
	for name, c := range map[string]struct{ from, want map[string]string }{
		"none":            {nil, nil},
		"others":          {map[string]string{"C": "1"}, nil},
		"any case":        {map[string]string{"A": "1", "b": "2"}, map[string]string{"a": "1", "b": "2"}},
		"long others":     {map[string]string{"C": long, "D": long, "b": "2"}, map[string]string{"b": "2"}},
		"as much as fits": {map[string]string{"b": long}, map[string]string{"b": long}},
		"the first ones":  {map[string]string{"a": "1", "b": long}, map[string]string{"a": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // maps have no order
				if got := emulated([]string{"a", "b"}, c.from); !maps.Equal(got, c.want) {
					t.Fatalf("%d of %d headers", len(got), len(c.want))
				}
			}
		})
	}
}
