// Package load is `carillon bench`: a load generator for real-time servers
// that is cheaper per message than what it measures, checks everything that
// arrives, and says when it was itself the bottleneck. Scenarios run against
// any server that speaks a dialect of package fleet.
package load

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"
)

// Command is the grammar of `carillon bench`, for kong. Its Run methods take
// a context.Context and Streams.
type Command struct {
	Run     Run     `cmd:"" default:"withargs" help:"Run a scenario against a server."`
	Compare Compare `cmd:"" help:"Compare the figures of two runs that were written with --json."`
	Null    Null    `cmd:"" help:"Run the null server, which does the least that a server can do: what the generator reaches with it is its own limit."`
	Worker  Worker  `cmd:"" hidden:"" help:"Hold connections for a run with several processes."`
}

// Streams are where output goes.
type Streams struct{ Out, Err io.Writer }

// Run is a scenario with its flags. A zero means what suits the scenario.
type Run struct {
	Scenario string `arg:"" enum:"connect,idle,fanout,channels,churn,presence,storm,slow,publish" help:"connect: make connections. idle: hold them. fanout: one channel, everybody gets everything. channels: many channels. churn: leave and join channels. presence: the same with members. storm: all connections are lost at once and come back. slow: some stop reading. publish: what publishing costs."`

	URL     []string `default:"ws://127.0.0.1:6001" placeholder:"URL" help:"Where clients connect; several are used in turns."`
	Dialect string   `enum:"pusher,centrifugo,centrifugo-protobuf,raw" default:"pusher" help:"Protocol of the clients: pusher; centrifugo, in JSON or Protobuf; or raw WebSocket to a server that sends everything to everybody."`
	Key     string   `default:"carillon-dev-key" help:"App key."`
	Secret  string   `default:"carillon-dev-secret" help:"The key's secret, to sign subscriptions and publications."`
	Token   string   `placeholder:"SECRET" help:"Secret (HMAC) of the tokens of centrifugo's clients; without one they are anonymous."`
	App     string   `default:"1001" help:"App id."`

	Via        string `default:"http" enum:"http,batch,nats,router,socket" help:"How messages are published: http, batch (POST /batch_events), nats (car.pub.<app>), router (over NATS as the api service does), socket (to the null server)."`
	API        string `placeholder:"URL" help:"Where the HTTP API is, if not where clients connect."`
	NATS       string `default:"nats://127.0.0.1:4222" placeholder:"URL" help:"NATS server of the routers, for --via nats and router."`
	Publishers int    `help:"Requests that may be under way at once: HTTP connections, or NATS requests."`
	Batch      int    `default:"10" help:"Messages of one request, with batch and nats."`
	Size       int    `default:"64" help:"Bytes of a message's data, 33 or more."`

	Connections int           `short:"n" help:"Connections."`
	Workers     int           `help:"Processes that hold them; by default as few as the limit of open files allows."`
	ConnectRate float64       `help:"Connections begun a second; 0: as fast as it goes."`
	AtOnce      int           `help:"Connections that may be under way at once."`
	From        []netip.Addr  `placeholder:"ADDRESS" help:"Local addresses to connect from, in turns."`
	Own         int           `help:"Channels that each connection has to itself."`
	Shared      int           `help:"Channels that all connections are subscribed to."`
	Spread      int           `help:"Channels over which connections are spread, one each."`
	Prefix      string        `help:"What channel names begin with, such as private- or presence-."`
	Slow        float64       `help:"Share of connections that stop reading, 0 to 1."`
	Ping        time.Duration `help:"How often each idle connection sends a ping; pings of the server are answered in any case."`

	Rate   float64       `help:"Messages (or changes, with churn) a second; 0: as soon as those before have arrived."`
	Window int           `default:"1" help:"Messages that may be on their way, with --rate 0."`
	Mix    float64       `help:"Share of messages to shared channels, with channels."`
	Length time.Duration `default:"10s" help:"How long it is measured."`
	Warmup time.Duration `default:"1s" help:"How long it runs before."`
	Within time.Duration `default:"60s" help:"How long connecting, and the last messages, may take."`

	PID     []int  `name:"pid" help:"Server processes on this machine whose CPU and memory are read; by default the one that listens at the first URL."`
	JSON    string `placeholder:"FILE" help:"Write the result as JSON, for compare and other machines; - is standard output."`
	NoCheck bool   `help:"Don't measure the generator against the null server first."`
}

// Compare is `carillon bench compare`.
type Compare struct {
	Before string `arg:"" type:"existingfile" help:"JSON of the first run."`
	After  string `arg:"" type:"existingfile" help:"JSON of the second run."`
}

// Null is `carillon bench null`.
type Null struct {
	Listen string `default:"127.0.0.1:0" help:"IPv4 loopback address."`
	Slow   int    `help:"Bytes that are kept for a client that does not read; 0 ends the server when there is one."`
}

// Worker is how a run starts further processes of itself.
type Worker struct {
	Args []string `arg:""`
}

// defaults fills in what suits the scenario.
func (r *Run) defaults() {
	set := func(to *int, value int) {
		if *to == 0 {
			*to = value
		}
	}
	switch r.Scenario {
	case "connect", "idle":
		set(&r.Connections, 10_000)
	case "storm":
		set(&r.Connections, 10_000)
		set(&r.AtOnce, 1<<20)
		r.Prefix = or(r.Prefix, "private-")
	case "channels":
		set(&r.Connections, 10_000)
		set(&r.Own, 1)
	case "presence":
		set(&r.Connections, 1000)
		set(&r.Spread, max(r.Connections/20, 1))
		r.Prefix = or(r.Prefix, "presence-")
		set(&r.Window, 10)
	case "churn":
		set(&r.Connections, 1000)
		set(&r.Own, 1)
	case "slow":
		set(&r.Connections, 1000)
		if r.Slow == 0 {
			r.Slow = 0.05
		}
		if r.Rate == 0 {
			r.Rate = 100
		}
	case "publish":
		set(&r.Connections, 1)
	default:
		set(&r.Connections, 1000)
	}
	if r.Own+r.Spread == 0 {
		set(&r.Shared, 1)
	}
	set(&r.Publishers, min(max(r.Window, 8), 64))
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// hosts gives host:port of the URLs.
func hosts(urls []string) ([]string, error) {
	var list []string
	for _, raw := range urls {
		u, err := url.Parse(raw)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the URL %q: %w", raw, err)
		case u.Scheme != "ws" && u.Scheme != "http":
			return nil, fmt.Errorf("the URL %q: want ws:// or http://; the generator speaks no TLS", raw)
		case u.Port() == "":
			list = append(list, u.Host+":80")
		default:
			list = append(list, u.Host)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no URL")
	}
	return list, nil
}

// machine describes where a run took place.
func machine() string {
	model := runtime.GOARCH
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s, %s", runtime.NumCPU(), model, runtime.Version())
}
