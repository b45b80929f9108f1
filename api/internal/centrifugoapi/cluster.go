package centrifugoapi

import (
	"context"
	"encoding/json"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// InfoRequest asks for the nodes of the cluster.
type InfoRequest struct{}

// InfoResult lists them.
type InfoResult struct {
	Nodes []Node `json:"nodes"`
}

// Node is one, with what it has of the app that asks.
type Node struct {
	UID     string `json:"uid"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Counts of the node's gateway. NumUsers and NumChannels of several nodes
	// can't be added up: they may have the same.
	NumClients  int `json:"num_clients"`
	NumUsers    int `json:"num_users"`
	NumChannels int `json:"num_channels"`
	NumSubs     int `json:"num_subs"`
	// Uptime in seconds.
	Uptime int64 `json:"uptime"`
}

// Info lists the nodes of the cluster.
func (c *Core) Info(ctx context.Context, a *app.App, _ *InfoRequest) (*InfoResult, *Error) {
	nodes, err := c.deps.Fleet.Nodes(ctx, a.ID)
	if err != nil {
		return nil, c.failed(ctx, "info", err)
	}
	out := &InfoResult{Nodes: make([]Node, 0, len(nodes))}
	now := c.deps.Now()
	for i := range nodes {
		n := Node{UID: nodes[i].Incarnation, Name: nodes[i].Node, Version: nodes[i].Version}
		if started := nodes[i].Started(); !started.IsZero() {
			n.Uptime = max(0, int64(now.Sub(started).Seconds()))
		}
		if have := nodes[i].Numbers; have != nil {
			n.NumClients, n.NumUsers, n.NumChannels, n.NumSubs = have.Clients, have.Users, have.Channels, have.Subscriptions
		}
		out.Nodes = append(out.Nodes, n)
	}
	return out, nil
}

// RPCRequest calls the application by way of its rpc hook.
type RPCRequest struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// RPCResult is what the hook answered.
type RPCResult struct {
	Data json.RawMessage `json:"data,omitempty"`
}

// RPC calls the hook of the app that answers such calls of clients, on behalf
// of no client.
func (c *Core) RPC(ctx context.Context, a *app.App, req *RPCRequest) (*RPCResult, *Error) {
	if req.Method == "" {
		return nil, badRequest("method is missing")
	}
	if a.Centrifugo.HookOf(req.Method) == "" {
		return nil, notAvailable("no hook of app %s answers the method %q: add it to centrifugo.rpc", a.ID, req.Method)
	}
	d, err := c.deps.Hooks.RPC(ctx, authz.RPC{
		Client: authz.Client{App: a.ID, Protocol: "centrifugo", Encoding: "json"}, Method: req.Method, Data: req.Params,
	})
	if err != nil {
		return nil, c.failed(ctx, "rpc", err)
	}
	switch {
	case d.Verdict != nil:
		return nil, &Error{Code: d.Verdict.Code, Message: d.Verdict.Text}
	case d.Allow:
		return &RPCResult{Data: d.Reply}, nil
	}
	return nil, ofReason(&d)
}

func ofReason(d *authz.Decision) *Error {
	switch d.Reason {
	case authz.NoMethod:
		return refuse(codeMethodNotFound, "method not found: %s", d.Message)
	case authz.NotAvailable:
		return notAvailable("%s", d.Message)
	case authz.Unavailable:
		return refuse(codeInternal, "internal server error: %s", d.Message)
	}
	return refuse(codePermissionDenied, "permission denied: %s", d.Message)
}
