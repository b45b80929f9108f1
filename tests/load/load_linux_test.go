package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/load"
	"github.com/carillon-rt/carillon/tests/load/crew"
	"github.com/carillon-rt/carillon/tests/load/null"
)

// The generator starts further processes of the binary that it is in: here
// that is the test's.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" {
		var err error
		switch os.Args[2] {
		case "null":
			err = null.Run("127.0.0.1:0", 0, 0, os.Stdout)
		case "worker":
			err = crew.Work(os.Args[3:])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// against runs a scenario against a null server and gives its output and JSON.
func against(t *testing.T, r load.Run) (out string, file string) {
	t.Helper()
	addr, stop, err := load.StartNull()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	r.URL = []string{"ws://" + addr}
	r.Length, r.Warmup, r.Within = 200*time.Millisecond, 10*time.Millisecond, 20*time.Second
	r.Size, r.Window = 64, max(r.Window, 1)
	r.JSON = filepath.Join(t.TempDir(), "run.json")
	var text bytes.Buffer
	if err := r.Run(context.Background(), load.Streams{Out: &text, Err: &text}); err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	return text.String(), r.JSON
}

// results is what the tests read of the JSON.
type results struct {
	Check  *struct{ Figures []struct{ Name string } }
	Result struct {
		Figures []struct {
			Name  string
			Value float64
		}
		Tally struct{ Delivered, Missing int64 }
	}
}

func read(t *testing.T, file string) (r results) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *results) figure(name string) float64 {
	for _, f := range r.Result.Figures {
		if f.Name == name {
			return f.Value
		}
	}
	return -1
}

func TestFanoutAgainstTheNullServer(t *testing.T) {
	out, file := against(t, load.Run{Scenario: "fanout", Dialect: "raw", Via: "socket", Connections: 50, Window: 4})
	r := read(t, file)
	if r.Check == nil || len(r.Check.Figures) == 0 {
		t.Error("the generator has not measured itself")
	}
	if r.Result.Tally.Delivered == 0 || r.Result.Tally.Missing != 0 || r.Result.Tally.Delivered%50 != 0 {
		t.Errorf("%+v", r.Result.Tally)
	}
	for _, name := range []string{"delivered", "CPU per delivery", "p99", "connected", "memory per connection"} {
		if r.figure(name) < 0 {
			t.Errorf("there is no figure %q", name)
		}
	}
	if !strings.Contains(out, "missing 0, duplicates 0, out of order 0") {
		t.Errorf("the report lacks the check:\n%s", out)
	}
}

func TestPacedFanout(t *testing.T) {
	_, file := against(t, load.Run{Scenario: "fanout", Dialect: "raw", Via: "socket", Connections: 5, Rate: 100, NoCheck: true})
	if r := read(t, file); r.Result.Tally.Delivered != 5*20 {
		t.Errorf("%d deliveries in 200 ms at 100/s to 5, want 100", r.Result.Tally.Delivered)
	}
}

func TestSeveralProcesses(t *testing.T) {
	for _, name := range []string{"connect", "idle", "storm"} {
		_, file := against(t, load.Run{Scenario: name, Dialect: "raw", Connections: 101, Workers: 3, NoCheck: true})
		if r := read(t, file); r.figure("connected") <= 0 {
			t.Errorf("%s: %+v", name, r.Result)
		}
	}
}

func TestCompare(t *testing.T) {
	_, before := against(t, load.Run{Scenario: "connect", Dialect: "raw", Connections: 10, NoCheck: true})
	_, after := against(t, load.Run{Scenario: "connect", Dialect: "raw", Connections: 10, NoCheck: true})
	var out bytes.Buffer
	if err := (load.Compare{Before: before, After: after}).Run(load.Streams{Out: &out, Err: &out}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "connected, 1/s") || !strings.Contains(out.String(), "%") {
		t.Errorf("the comparison is\n%s", out.String())
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (load.Compare{Before: before, After: bad}).Run(load.Streams{Out: &out, Err: &out}); err == nil || !strings.Contains(err.Error(), "no figures") {
		t.Errorf("a file without figures: %v", err)
	}
}

// What can't be done is said before anything is tried.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		run  load.Run
		want string
	}{
		"TLS":             {load.Run{Scenario: "connect", URL: []string{"wss://x"}, NoCheck: true}, "no TLS"},
		"nobody there":    {load.Run{Scenario: "connect", URL: []string{"ws://127.0.0.1:1"}, Connections: 1, NoCheck: true, Within: time.Second}, "refused"},
		"tiny messages":   {load.Run{Scenario: "fanout", URL: []string{"ws://127.0.0.1:1"}, Via: "socket", Size: 3, NoCheck: true}, "too small"},
		"unknown dialect": {load.Run{Scenario: "connect", URL: []string{"ws://127.0.0.1:1"}, Dialect: "smoke", NoCheck: true}, "centrifugo-protobuf or raw"},
	} {
		var out bytes.Buffer
		if err := c.run.Run(context.Background(), load.Streams{Out: &out, Err: &out}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
