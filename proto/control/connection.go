package control

import "github.com/carillon-rt/carillon/proto/authz"

// Select names the connections that an Operation is about: those that match
// all fields that are set. At least one of User, Client and All is.
type Select struct {
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"` // socket id
	All    bool   `json:"all,omitempty"`
	// Except are socket ids.
	Except []string `json:"except,omitempty"`
}

// Operation changes connections wherever they are. It travels in a Command to
// all gateways; one of its fields besides Select is set. A client that does
// not speak a dialect with words for it gets what comes nearest.
type Operation struct {
	Select
	Subscribe   *SubscribeThem     `json:"subscribe,omitempty"`
	Unsubscribe string             `json:"unsubscribe,omitempty"` // channel
	Disconnect  *authz.Verdict     `json:"disconnect,omitempty"`
	Refresh     *authz.Credentials `json:"refresh,omitempty"`
}

// SubscribeThem subscribes connections to a channel on the server's behalf.
type SubscribeThem struct {
	Channel string      `json:"channel"`
	Grant   authz.Grant `json:"grant"`
	// Since has what was published after a position sent first.
	SinceOffset uint64 `json:"since_offset,omitempty"`
	SinceEpoch  string `json:"since_epoch,omitempty"`
}
