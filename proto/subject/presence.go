package subject

import "strconv"

// GatewayPing is where gateway node says that it is alive: a request with an
// empty body, answered with the node's incarnation. No responder means that
// the gateway is gone from NATS.
func GatewayPing(node string) string { return "car.gw." + node + ".ping" }

// PresenceNotes carries what the owner of a presence shard tells the standby:
// see presence.Note.
func PresenceNotes(shard int) string { return "car.pres." + strconv.Itoa(shard) + ".notes" }

// PresenceSync carries the heartbeats of presence nodes: see presence.Beat.
const PresenceSync = "car.pres.sync"
