package env

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
)

const (
	readyWithin  = 30 * time.Second
	stopWithin   = 30 * time.Second
	answerWithin = 5 * time.Second
	logShown     = 60 // lines of each process, when a test fails
)

// Node is one process of Carillon.
type Node struct {
	Process
	// Link is how the process reaches NATS, with Proxied; nil without.
	Link *Link

	addresses string
	addr      Addresses
}

// Addresses is where a process listens, as it writes it into its addresses
// file; "" where it does not.
type Addresses struct {
	Public string `json:"public"`
	API    string `json:"api"`
	// CentrifugoGRPC is empty unless the port is configured.
	CentrifugoGRPC string `json:"centrifugo_grpc"`
	Ops            string `json:"ops"`
	NATS           string `json:"nats"`
}

// binary is the path of the binary: CARILLON_BIN, or one built now, which the
// next run of the same package replaces.
var binary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("CARILLON_BIN"); given != "" {
		return given, nil
	}
	return build("carillon", "github.com/carillon-rt/carillon/standalone/cmd/carillon")
})

// Command is the real binary with arguments and, of the variables that begin
// with CARILLON_, only those given (NAME=value). It is not started.
func Command(t testing.TB, vars []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	// Variables that tests use would be unknown settings to the process.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CARILLON_") })
	cmd.Env = append(cmd.Env, vars...)
	return endWithUs(cmd)
}

// endWithUs has a test process that is killed take the command with it.
func endWithUs(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Restart starts the process again, with the same files, after it has been
// stopped or killed, and returns when it is ready. Its ports are new ones.
func (n *Node) Restart() {
	n.t.Helper()
	n.StartAgain()
	n.WaitReady()
}

// StartAgain is Restart that does not wait.
func (n *Node) StartAgain() {
	n.t.Helper()
	if n.Running() {
		n.t.Fatalf("%s still runs: stop it before it is started again", n.Name)
	}
	if err := os.Remove(n.addresses); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	n.addr = Addresses{}
	n.start()
}

// WaitReady returns when the process answers that it is ready.
func (n *Node) WaitReady() {
	n.t.Helper()
	await.Within(n.t, readyWithin, n.Name+" is ready", func() bool {
		if !n.Running() {
			n.t.Fatalf("%s has ended: %s", n.Name, n.log.String())
		}
		return n.Ready()
	})
}

// Ready says whether the process answers that it is ready.
func (n *Node) Ready() bool {
	at, ok := n.Addresses()
	if !ok {
		return false
	}
	n.addr = at
	return answers("http://" + at.Ops + "/readyz")
}

// Addresses is where the process listens now; false while it has not said so.
// Any goroutine may ask.
func (n *Node) Addresses() (at Addresses, ok bool) {
	raw, err := os.ReadFile(n.addresses)
	return at, err == nil && json.Unmarshal(raw, &at) == nil && at.Ops != ""
}

// Sees are the names of the processes that this one sees in the gossip as
// alive and connected to NATS, itself included; nil when it does not answer.
func (n *Node) Sees() (names []string) {
	at, ok := n.Addresses()
	if !ok {
		return nil
	}
	client := http.Client{Timeout: answerWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + at.Ops + "/debug/cluster")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, rest, _ := strings.Cut(strings.TrimLeft(lines.Text(), "* "), "\t")
		if !strings.HasSuffix(rest, "has lost NATS") {
			names = append(names, name)
		}
	}
	return names
}

// answers says whether a GET is answered with 200 in time.
func answers(url string) bool {
	client := http.Client{Timeout: answerWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Public, API and Ops are host:port.
func (n *Node) Public() string { return n.addr.Public }

// API is where the HTTP API is served.
func (n *Node) API() string {
	if n.addr.API != "" {
		return n.addr.API
	}
	return n.addr.Public
}

// CentrifugoGRPC is where the Centrifugo server API is served over gRPC.
func (n *Node) CentrifugoGRPC() string { return n.addr.CentrifugoGRPC }

// Ops is the address of the ops port.
func (n *Node) Ops() string { return n.addr.Ops }

// NATS is the URL of the embedded NATS server; "" if there is none, or if it
// listens nowhere (embedded.listen).
func (n *Node) NATS() string { return n.addr.NATS }
