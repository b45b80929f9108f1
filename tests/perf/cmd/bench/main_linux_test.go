package main

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	all := []one{{name: "a"}, {name: "b"}, {name: "c"}}
	for only, want := range map[string]string{"": "a b c", "b": "b", "c,a": "a c"} {
		chosen, err := choose(all, only)
		var names []string
		for _, c := range chosen {
			names = append(names, c.name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%q gives %q (%v), want %q", only, names, err, want)
		}
	}
	if _, err := choose(all, "a,d"); err == nil || !strings.Contains(err.Error(), `"d"; there are a, b, c`) {
		t.Errorf("an unknown case: %v", err)
	}
}
