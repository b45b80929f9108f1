package presence

import (
	"strconv"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Roles in the membership.
const (
	roleGateway  = "gateway"
	rolePresence = "presence"
)

// view is what a membership means for this node. It is immutable.
type view struct {
	duties   [subject.PresenceShards]replica.Duty
	gateways []string          // nodes of those that can report
	live     map[string]string // gateway node -> incarnation; its members are there while it has lost NATS, too
	sole     bool              // there is no other presence node, and won't be
}

// newView works out who owns what. This node counts as a presence node
// whatever the membership says: it would not ask otherwise.
func newView(ms cluster.Membership) *view {
	v := &view{live: map[string]string{}, sole: cluster.IsStatic(ms)}
	local, members := ms.Local(), ms.Members()
	for _, m := range cluster.WithRole(members, roleGateway) {
		v.live[m.Node] = m.Incarnation
		if !m.Away {
			v.gateways = append(v.gateways, m.Node)
		}
	}
	nodes := cluster.Reachable(members, rolePresence)
	for shard := range v.duties {
		v.duties[shard] = duty(local.Node, cluster.Owners(nodes, "presence/"+strconv.Itoa(shard), 2))
		v.duties[shard].Sole = v.sole
	}
	return v
}

// duty of node, given the heaviest two for the shard.
func duty(node string, heaviest []cluster.Member) replica.Duty {
	if len(heaviest) == 0 {
		return replica.Duty{Role: replica.None}
	}
	d := replica.Duty{Owner: heaviest[0].Node, Incarnation: heaviest[0].Incarnation}
	switch {
	case heaviest[0].Node == node:
		d.Role = replica.Owner
		if len(heaviest) > 1 {
			d.Heir = heaviest[1].Node
		}
	case len(heaviest) > 1 && heaviest[1].Node == node:
		d.Role = replica.Standby
	}
	return d
}

// incarnation is that of a live gateway.
func (v *view) incarnation(node string) (string, bool) {
	inc, ok := v.live[node]
	return inc, ok
}

// lost says whether the membership shows no such run of a gateway.
func (v *view) lost(m presence.Mark) bool {
	inc, ok := v.live[m.Node]
	return !ok || inc != m.Incarnation
}
