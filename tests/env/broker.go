package env

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/loopback"
)

// Broker is one process of the real NATS server, in a cluster of such.
type Broker struct {
	Process

	client, monitor, route string // host:port
	// reached is where the other servers reach route: there, or at a proxy.
	reached string
}

// serverBinary is the path of nats-server, of the version that Carillon embeds,
// built now.
var serverBinary = sync.OnceValues(func() (string, error) {
	return build("nats-server", "github.com/nats-io/nats-server/v2")
})

// build builds a command for this package's tests; the next run of the same
// package replaces it.
func build(name, pkg string) (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("carillon-%x", md5.Sum([]byte(here))), name)
	out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// startBrokers starts the servers and waits until they can store.
func (c *Cluster) startBrokers() {
	c.t.Helper()
	binary, err := serverBinary()
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range c.cfg.brokers {
		c.Brokers = append(c.Brokers, &Broker{
			Process: Process{Name: fmt.Sprint("nats-", i), t: c.t},
			client:  loopback.Addr(c.t), monitor: loopback.Addr(c.t), route: loopback.Addr(c.t),
		})
	}
	if c.cfg.proxied {
		c.Routes = newMesh(c.t)
	}
	for _, b := range c.Brokers {
		b.reached = b.route
		if c.Routes != nil {
			b.reached = c.Routes.join(b.Name, b.route, b.PID, false)
		}
	}
	for _, b := range c.Brokers {
		file := filepath.Join(c.t.TempDir(), b.Name+".conf")
		if err := os.WriteFile(file, []byte(b.conf(c.t.TempDir(), c.Brokers)), 0o600); err != nil {
			c.t.Fatal(err)
		}
		b.command = func() *exec.Cmd { return endWithUs(exec.Command(binary, "--config", file)) }
		if c.cfg.logDir != "" {
			b.keepLog(filepath.Join(c.cfg.logDir, b.Name+".log"))
		}
		b.start()
		b.stopAtEnd()
	}
	for _, b := range c.Brokers {
		await.Within(c.t, readyWithin, b.Name+" is ready", b.Ready)
	}
}

// conf is the server's configuration. It does not tell clients of the other
// servers: they would go there past their proxies.
func (b *Broker) conf(dir string, all []*Broker) string {
	var routes []string
	for _, other := range all {
		if other != b {
			routes = append(routes, strconv.Quote("nats-route://"+other.reached))
		}
	}
	return fmt.Sprintf(`server_name: %s
listen: %q
http: %q
jetstream: {store_dir: %q, max_file: 4G, max_mem: 512M, sync_interval: 1s}
cluster: {name: tests, listen: %q, advertise: %q, routes: [%s], no_advertise: true}
`, b.Name, b.client, b.monitor, dir, b.route, b.reached, strings.Join(routes, ", "))
}

// StartAgain starts the server on the same ports with the same files, after it
// has ended, and does not wait.
func (b *Broker) StartAgain() {
	b.t.Helper()
	if b.Running() {
		b.t.Fatalf("%s still runs: stop it before it is started again", b.Name)
	}
	b.start()
}

// Ready says whether the server takes clients and its streams are as new as
// their leaders'.
func (b *Broker) Ready() bool { return answers("http://" + b.monitor + "/healthz") }

// URL is where clients connect, past any proxy.
func (b *Broker) URL() string { return "nats://" + b.client }

// brokerURLs are the servers as the process has to be told, quoted.
func (c *Cluster) brokerURLs(n *Node) (urls []string) {
	if len(c.Brokers) == 0 {
		return []string{strconv.Quote(c.NATS.URL())}
	}
	for i, b := range c.Brokers {
		url := b.URL()
		if n.Link != nil {
			url = "nats://" + n.Link.proxies[i].addr()
		}
		urls = append(urls, strconv.Quote(url))
	}
	return urls
}
