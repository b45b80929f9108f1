package wscase

import "testing"

func TestCasesHaveDistinctNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases(1000) {
		if seen[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		seen[c.Name] = true
	}
	t.Logf("%d cases", len(seen))
}
