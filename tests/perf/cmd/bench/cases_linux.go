package main

import (
	"slices"
	"time"

	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/scenario"
)

// patience is how long connecting, and the last messages, may take.
const patience = 60 * time.Second

// one is a case: a scenario that is run against several targets in turns.
type one struct {
	name    string
	about   string
	targets []string
	setup   scenario.Setup
	how     publishing
	figures []string // that are kept
	budgets []budget
	fresh   bool   // each run has new processes
	source  string // instead of a scenario: a benchmark of package router
	derive  func(r *scenario.Result)
}

// budget bounds a figure of one target: by a number, or by that of another
// target in the same round.
type budget struct {
	figure string
	target string
	of     string // "" for a number, or the target that it is a ratio to
	most   float64
	least  float64
}

func sharedPlan(n int) fleet.Plan { return fleet.Plan{Connections: n, Shared: 1} }

func ownPlan(n int, prefix string) fleet.Plan {
	return fleet.Plan{Connections: n, Own: 1, Prefix: prefix}
}

var (
	perDelivery = []string{"CPU per delivery", "CPU per delivery, user", "delivered", "messages per read", "p50", "p99"}
	http1       = publishing{via: "http", bytes: 64, flight: 8}
	router      = publishing{via: "router", bytes: 64, flight: 64}
)

// cases are the rows of the table of budgets.
func cases() []one {
	return slices.Concat(deliveryCases(), latencyCases(), idleCases(), connectCases(), slowCases(), publishCases(), durableCases(), centrifugoCases())
}

// all are the targets that can do everything that clients ask for.
func all() []string { return []string{cLoop, goLoop, gateway, oneProcess} }

func fanout(n, window int, length time.Duration) scenario.Setup {
	return scenario.Setup{Kind: scenario.Fanout, Plan: sharedPlan(n), Window: window, Warmup: 300 * time.Millisecond, Length: length}
}

// deliveryCases are about what a delivery costs.
func deliveryCases() []one {
	return []one{
		{
			name: "fanout-1", about: "64 B to 1,000 subscribers, one message at a time", targets: all(),
			setup: fanout(1000, 1, 2*time.Second), how: http1, figures: perDelivery,
			budgets: []budget{{figure: "CPU per delivery", target: gateway, of: cLoop, most: 1.25}},
		},
		{
			name: "fanout-1-10k", about: "64 B to 10,000 subscribers, one message at a time", targets: []string{cLoop, gateway},
			setup: fanout(10_000, 1, 3*time.Second), how: http1, figures: perDelivery,
			budgets: []budget{{figure: "CPU per delivery", target: gateway, of: cLoop, most: 1.25}},
		},
		{
			name: "fanout-64", about: "64 B to 1,000 subscribers, 64 messages in flight", targets: all(),
			setup: fanout(1000, 64, 2*time.Second), how: router, figures: perDelivery,
			budgets: []budget{
				{figure: "CPU per delivery", target: gateway, most: 0.25},
				{figure: "delivered", target: gateway, least: 4e6},
			},
		},
	}
}

// latencyCases are about many subscribers at a rate, and many channels.
func latencyCases() []one {
	return []one{
		{
			name: "paced", about: "256 B to 10,000 subscribers, 100 messages a second", targets: []string{cLoop, gateway},
			setup: scenario.Setup{
				Kind: scenario.Fanout, Plan: sharedPlan(10_000), Rate: 100, Warmup: time.Second, Length: 5 * time.Second,
			},
			how: publishing{via: "http", bytes: 256, flight: 16}, figures: []string{"CPU per delivery", "delivered", "p50", "p99"},
			budgets: []budget{{figure: "p99", target: gateway, of: cLoop, most: 2}},
		},
		{
			name: "channels", about: "10,000 connections on own channels and 10 shared ones, 64 messages to random own channels in flight",
			targets: []string{oneProcess},
			setup: scenario.Setup{
				Kind: scenario.Channels, Plan: fleet.Plan{Connections: 10_000, Own: 1, Shared: 10}, Window: 64,
				Warmup: 300 * time.Millisecond, Length: 3 * time.Second,
			},
			how: router, figures: []string{"CPU per publication", "delivered", "p99"},
			budgets: []budget{{figure: "CPU per publication", target: oneProcess, most: 12}},
		},
	}
}

// idleCases are about connections that are just there.
func idleCases() []one {
	return []one{
		{
			name: "memory-shared", about: "15,000 idle connections on one shared channel", targets: []string{goLoop, gateway}, fresh: true,
			setup:   scenario.Setup{Kind: scenario.Idle, Plan: sharedPlan(15_000), Warmup: time.Second, Length: time.Second},
			figures: []string{"memory per connection"},
			budgets: []budget{{figure: "memory per connection", target: gateway, most: 2}},
		},
		{
			name: "memory-own", about: "15,000 idle connections on a channel each", targets: []string{gateway}, fresh: true,
			setup:   scenario.Setup{Kind: scenario.Idle, Plan: ownPlan(15_000, ""), Warmup: time.Second, Length: time.Second},
			figures: []string{"memory per connection"},
			budgets: []budget{{figure: "memory per connection", target: gateway, most: 2}},
		},
		keepAliveCase("keepalive"),
	}
}

// connectCases are about connections that are made.
func connectCases() []one {
	return []one{
		{
			name: "connect", about: "connect and subscribe to one public channel, 10,000 connections", targets: all(),
			setup:   scenario.Setup{Kind: scenario.Connect, Plan: sharedPlan(10_000)},
			figures: []string{"CPU per connection", "connected"},
			budgets: []budget{
				{figure: "CPU per connection", target: gateway, most: 40},
				{figure: "connected", target: gateway, least: 25_000},
			},
		},
		{
			name: "storm", about: "15,000 clients of private channels lose their connections and come back at once", targets: []string{oneProcess},
			setup:   scenario.Setup{Kind: scenario.Storm, Plan: fleet.Plan{Connections: 15_000, Own: 1, Prefix: "private-", AtOnce: 1 << 20, Again: true}},
			figures: []string{"all back after", "CPU per return", "refused"},
			budgets: []budget{
				{figure: "all back after", target: oneProcess, most: 5},
				{figure: "refused", target: oneProcess, most: 0},
			},
		},
	}
}

// slowCases are about clients that do not read.
func slowCases() []one {
	return []one{
		{
			name: "slow", about: "5 % of 10,000 subscribers stop reading; 300 messages of 6 KiB, 10 a second or as many as take half a core", targets: []string{gateway}, fresh: true,
			setup: scenario.Setup{
				Kind: scenario.Slow, Plan: fleet.Plan{Connections: 10_000, Shared: 1, Slow: 0.05}, Rate: 10, Cores: 0.5,
				Warmup: time.Second, Length: 30 * time.Second,
			},
			how: publishing{via: "http", bytes: 6144, flight: 8},
			figures: []string{
				"p99 with slow readers / without", "memory per slow reader, user", "memory per slow reader, kernel", "memory per slow reader",
				"slow readers that were closed", "messages a second", "everybody reads: p99", "some do not read: p99", "some do not read: servers' cores",
			},
			derive: slowMemory,
			budgets: []budget{
				{figure: "p99 with slow readers / without", target: gateway, most: 1.2},
				{figure: "memory per slow reader", target: gateway, most: 512},
				{figure: "slow readers that were closed", target: gateway, least: 500},
			},
		},
	}
}

// publishCases are about publications that nobody gets.
func publishCases() []one {
	return []one{
		publishCase("trigger", "POST /events, 32 connections", publishing{via: "http", bytes: 64, flight: 32}, 40),
		publishCase("batch", "POST /batch_events with 10 events, 32 connections", publishing{via: "batch", bytes: 64, flight: 32, batch: 10}, 20),
		publishCase("nats", "car.pub.<app> with 100 publications, 8 requests under way", publishing{via: "nats", bytes: 64, flight: 8, batch: 100}, 10),
	}
}

// durableCases are about the journal.
func durableCases() []one {
	return []one{
		{
			name: "durable-bulk", about: "128 B from two publishers to 100 durable channels through writer, journal and gateway", targets: []string{oneProcess},
			setup: scenario.Setup{
				Kind: scenario.Channels, Plan: ownPlan(100, "durable-"), Window: 32 << 10, Each: 64,
				Warmup: time.Second, Length: 4 * time.Second,
			},
			how: publishing{via: "router", bytes: 128, flight: 32 << 10, publishers: 2}, figures: []string{"delivered", "CPU per publication", "p50"},
			budgets: []budget{{figure: "delivered", target: oneProcess, least: 500_000}},
		},
		{
			name: "durable-latency", about: "128 B through publisher, writer and journal to a gateway's subscription, 20,000 publications a second",
			targets: []string{inSource}, source: "BenchmarkLatency/journal", figures: []string{"p50", "p99"},
			budgets: []budget{{figure: "p50", target: inSource, most: 0.5}},
		},
		{
			name: "durable-paced", about: "128 B to 100 durable channels, 20,000 publications a second, to the clients", targets: []string{oneProcess},
			setup: scenario.Setup{
				Kind: scenario.Channels, Plan: ownPlan(100, "durable-"), Rate: 1000, Each: 20,
				Warmup: time.Second, Length: 4 * time.Second,
			},
			how: publishing{via: "router", bytes: 128, flight: 32 << 10}, figures: []string{"p50", "p99", "CPU per publication"},
		},
	}
}

// centrifugoCases are the cases of deliveries, connections and memory with
// clients of Centrifugo's protocol, in JSON and in Protobuf: the budgets are
// the same.
func centrifugoCases() (all []one) {
	for _, dialect := range []string{"centrifugo", "centrifugo-protobuf"} {
		few := []string{cLoop, gateway}
		all = append(all,
			one{
				name: dialect + "-1", about: "64 B to 1,000 subscribers, one message at a time", targets: few,
				setup: fanout(1000, 1, 2*time.Second), how: http1, figures: perDelivery,
				budgets: []budget{{figure: "CPU per delivery", target: gateway, of: cLoop, most: 1.25}},
			},
			one{
				name: dialect + "-64", about: "64 B to 1,000 subscribers, 64 messages in flight", targets: few,
				setup: fanout(1000, 64, 2*time.Second), how: router, figures: perDelivery,
				budgets: []budget{
					{figure: "CPU per delivery", target: gateway, most: 0.25},
					{figure: "delivered", target: gateway, least: 4e6},
				},
			},
			one{
				name: dialect + "-memory", about: "15,000 idle connections on one shared channel", targets: []string{gateway}, fresh: true,
				setup:   scenario.Setup{Kind: scenario.Idle, Plan: sharedPlan(15_000), Warmup: time.Second, Length: time.Second},
				figures: []string{"memory per connection"},
				budgets: []budget{{figure: "memory per connection", target: gateway, most: 2}},
			},
			keepAliveCase(dialect+"-keepalive"),
		)
		for i := len(all) - 4; i < len(all); i++ {
			all[i].setup.Plan.Dialect = dialect
			all[i].about += ", " + dialect
		}
	}
	return all
}

func publishCase(name, about string, how publishing, most float64) one {
	return one{
		name: name, about: about, targets: []string{oneProcess}, how: how,
		setup: scenario.Setup{
			Kind: scenario.Publish, Plan: sharedPlan(1), Warmup: 500 * time.Millisecond, Length: 2 * time.Second, Each: max(how.batch, 1), Window: 1,
		},
		figures: []string{"CPU per publication", "published"},
		budgets: []budget{{figure: "CPU per publication", target: oneProcess, most: most}},
	}
}

const keepAliveCost = "CPU per connection and second, at 25 s"

// keepAliveCase is about the keep-alive cost per idle connection at 25 s: at
// most 0.4 us/s, and at most twice the raw C loop in the same run, which does
// not depend on the machine's speed. The C loop's pings, and the answers, are
// those of WebSocket; the gateway's are messages of the dialect.
func keepAliveCase(name string) one {
	return one{
		name: name, about: "15,000 idle connections, pinged by the server; scaled to one ping in 25 s", targets: []string{cLoop, gateway},
		setup:   scenario.Setup{Kind: scenario.Idle, Plan: sharedPlan(15_000), Warmup: 12 * time.Second, Length: 20 * time.Second},
		figures: []string{keepAliveCost}, derive: keepAlive,
		budgets: []budget{{figure: keepAliveCost, target: gateway, most: 0.4}, {figure: keepAliveCost, target: gateway, of: cLoop, most: 2}},
	}
}

// keepAlive scales what idle connections cost: the server pings after
// activitySeconds and 5 s of slack, peers are measured at 25 s.
func keepAlive(r *scenario.Result) {
	const standard = 25
	us, _ := r.Figure("CPU per connection and second")
	r.Figures = append(r.Figures, scenario.Figure{Name: keepAliveCost, Unit: "us", Value: us * float64(period(activitySeconds)) / standard})
}

func slowMemory(r *scenario.Result) {
	user, _ := r.Figure("memory per slow reader, user")
	kernel, _ := r.Figure("memory per slow reader, kernel")
	r.Figures = append(r.Figures, scenario.Figure{Name: "memory per slow reader", Unit: "KB", Value: user + kernel})
}
