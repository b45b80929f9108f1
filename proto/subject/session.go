package subject

import (
	"crypto/sha256"
	"encoding/hex"
)

// GatewaySession is where gateway node takes requests about sessions that it
// has named: see exchange.Request. No responder means that the node is gone.
func GatewaySession(node string) string { return "car.gw." + node + ".session" }

// NamedSession is where the gateway that has the session which its client
// calls name takes requests about it. No responder means that there is no
// such session. The name is the client's, with whatever is in it: a hash of it
// stands in the subject, the name itself in the request.
func NamedSession(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "car.gw-session." + hex.EncodeToString(sum[:16])
}
