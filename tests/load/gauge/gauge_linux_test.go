package gauge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := ReadCPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	for { // work until the clock of the process has moved
		after, err := ReadCPU(pid)
		if err != nil {
			t.Fatal(err)
		}
		if used := after.Sub(before); used.Total() > 0 {
			break
		}
	}
	small, err := ReadRSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<20)
	for i := range block {
		block[i] = 1
	}
	large, err := ReadRSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	if grown := large - small; grown < 32<<20 {
		t.Errorf("RSS grew by %d bytes with 64 MB more", grown)
	}
	runtime.KeepAlive(block)
	if _, err := ReadCPU(-1); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}

func TestOpsPort(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	server := httptest.NewServer(mux)
	defer server.Close()
	ops := strings.TrimPrefix(server.URL, "http://")
	n, err := Goroutines(t.Context(), ops)
	if err != nil || n < 2 {
		t.Errorf("%d goroutines, %v", n, err)
	}
	h, err := ReadHeap(t.Context(), ops)
	if err != nil || h.Live <= 0 || h.Inuse < h.Live || h.Stack <= 0 {
		t.Errorf("heap %+v, %v", h, err)
	}
	file := t.TempDir() + "/heap"
	if err := Save(t.Context(), fmt.Sprintf("%s/debug/pprof/heap", server.URL), file); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the saved profile: %v, %v", info, err)
	}
	if err := Save(t.Context(), server.URL+"/nothing", file); err == nil {
		t.Error("a page that does not exist was saved")
	}
}
