// Package subject builds and parses every NATS subject that Carillon uses.
// No other package spells one.
package subject

import (
	"strconv"
	"strings"
)

// Names of the JetStream objects.
const (
	// JournalStream holds the batches of all partitions ("car.log.*").
	JournalStream = "CARILLON_LOG"
	// IngestStream is the work queue of plain publishes by backends.
	IngestStream = "CARILLON_IN"
	// HookStream is the work queue of webhook events.
	HookStream = "CARILLON_HOOK"
	// DeadHookStream keeps webhook events whose retries are used up.
	DeadHookStream = "CARILLON_HOOK_DEAD"
	// ConfigBucket is the KV bucket of apps: keys "public.<app>" and
	// "secret.<app>"; and of the cluster's facts: "cluster.partitions",
	// "cluster.generation".
	ConfigBucket = "carillon_cfg"
)

// Wildcards that streams and subscribers bind to.
const (
	AllLog     = "car.log.*"
	AllIngest  = "car.in.>"
	AllHooks   = "car.hook.*"
	RePublish  = "car.live.{{wildcard(1)}}"
	AllPublish = "car.pub.*"
	// AllDeadHooks are the webhook events whose retries are used up.
	AllDeadHooks = "car.hook-dead.*"
)

// Log is the journal subject of partition p: one message is one batch.
func Log(p int) string { return "car.log." + strconv.Itoa(p) }

// Live is where gateways receive the batches of partition p: republished from
// the journal, or published straight for channels without history.
func Live(p int) string { return "car.live." + strconv.Itoa(p) }

// AllSync are the heartbeats of all partitions.
const AllSync = "car.sync.*"

// Sync carries the heartbeat of partition p: the last sequence of its log.
func Sync(p int) string { return "car.sync." + strconv.Itoa(p) }

// Partition parses the last token of Log, Live, Sync and History subjects.
// It returns -1 when that is not a number.
func Partition(subject string) int {
	i := strings.LastIndexByte(subject, '.')
	p, err := strconv.Atoi(subject[i+1:])
	if err != nil || p < 0 {
		return -1
	}
	return p
}

// RouterPublish is where router node takes publish requests.
func RouterPublish(node string) string { return "car.router." + node + ".pub" }

// AnyRouterPublish reaches any live router (queue group Queue).
const AnyRouterPublish = "car.router-any.pub"

// Queue is the queue group of every service endpoint.
const Queue = "q"

// Clock asks for the newest time of the routers' clock that is known: routers
// and gateways answer with microseconds, in decimal digits.
const Clock = "car.clock"

// History is where the routers that follow partition p answer history and
// cache reads (queue group Queue).
func History(p int) string { return "car.hist." + strconv.Itoa(p) }

// Authorization endpoints (queue group Queue).
const (
	AuthSubscribe  = "car.auth.subscribe"
	AuthSignIn     = "car.auth.signin"
	AuthConnect    = "car.auth.connect"
	AuthRefresh    = "car.auth.refresh"
	AuthSubRefresh = "car.auth.sub-refresh"
	AuthPublish    = "car.auth.publish"
	AuthRPC        = "car.auth.rpc"
	AuthCacheEmpty = "car.auth.cache-empty"
)

// PresenceShards is the number of presence shards of a cluster.
const PresenceShards = 64

// PresenceDelta is where the owner of a presence shard takes deltas.
func PresenceDelta(shard int) string { return "car.pres." + strconv.Itoa(shard) + ".delta" }

// PresenceQuery is where the owner of a presence shard answers queries.
func PresenceQuery(shard int) string { return "car.pres." + strconv.Itoa(shard) + ".query" }

// GatewaySnapshot is where gateway node answers requests for a presence
// snapshot of a shard.
func GatewaySnapshot(node string) string { return "car.gw." + node + ".snapshot" }

// GatewayControl reaches every gateway: terminate connections of a user.
const GatewayControl = "car.gw-all.control"

// GatewayQuestion asks every gateway about its connections: see
// control.Question.
const GatewayQuestion = "car.gw-all.question"

// Publish is where routers take publish requests of an application's backend.
func Publish(app string) string { return "car.pub." + app }

// PublishApp gives the app of a Publish subject, "" if it is not one.
func PublishApp(subject string) string {
	app, ok := strings.CutPrefix(subject, "car.pub.")
	if !ok || strings.Contains(app, ".") {
		return ""
	}
	return app
}

// Ingest gives app and channel of a "car.in.<app>.<channel>" subject. The
// channel may hold dots, as they are legal in channel names and in subjects.
func Ingest(subject string) (app, channel string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "car.in.")
	if !ok {
		return "", "", false
	}
	app, channel, ok = strings.Cut(rest, ".")
	return app, channel, ok && app != "" && channel != ""
}

// Hook is the work-queue subject of an app's webhook events.
func Hook(app string) string { return "car.hook." + app }

// HookApp gives the app of a Hook subject.
func HookApp(subject string) string { return strings.TrimPrefix(subject, "car.hook.") }

// DeadHook is where an app's webhook events go when their retries are used up.
func DeadHook(app string) string { return "car.hook-dead." + app }

// DeadHookApp gives the app of a DeadHook subject.
func DeadHookApp(subject string) string { return strings.TrimPrefix(subject, "car.hook-dead.") }

// Headers of plain ingest messages (car.in.>).
const (
	HeaderEvent          = "Carillon-Event"
	HeaderExclude        = "Carillon-Exclude"
	HeaderIdempotencyKey = "Carillon-Idempotency-Key"
	HeaderID             = "Carillon-Id"
)
