package chaos

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// explain writes down why a process is not ready: what it says itself, and
// what each of its goroutines does.
func (w *world) explain(p process) {
	n, ok := p.(node)
	if !ok {
		w.t.Logf("%s is not ready", p.name())
		return
	}
	ready, err := get(n.Ops(), "/readyz")
	w.t.Logf("%s is not ready: %s %v", p.name(), ready, err)
	stacks, err := get(n.Ops(), "/debug/pprof/goroutine?debug=2")
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir, p.name()+".goroutines"), stacks, 0o600)
	}
	if err != nil {
		w.t.Logf("its goroutines: %v", err)
	}
}

// explainGossip writes down whom each process sees.
func (w *world) explainGossip() {
	for _, n := range w.cluster.Nodes {
		w.t.Logf("%s sees %v", n.Name, n.Sees())
	}
}

func get(addr, path string) ([]byte, error) {
	resp, err := http.Get(fmt.Sprintf("http://%s%s", addr, path))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
