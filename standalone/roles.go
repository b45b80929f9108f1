package standalone

import (
	"fmt"
	"slices"
	"strings"
)

// Role is a service that a node can run.
type Role string

// The roles.
const (
	Router   Role = "router"
	Presence Role = "presence"
	Auth     Role = "authsvc"
	API      Role = "api"
	Gateway  Role = "gateway"
)

// AllRoles lists the roles in the order in which they start; they stop in the reverse order, the gateway with its drain first.
func AllRoles() []Role { return []Role{Router, Presence, Auth, API, Gateway} }

// Roles is the set of roles that a node runs; empty is all of them.
type Roles []Role

// Has says whether the node runs the role.
func (rs Roles) Has(r Role) bool { return len(rs) == 0 || slices.Contains(rs, r) }

// All says whether every role runs here.
func (rs Roles) All() bool {
	return !slices.ContainsFunc(AllRoles(), func(r Role) bool { return !rs.Has(r) })
}

// Names lists the roles that run here, in the order in which they start.
func (rs Roles) Names() []string {
	var names []string
	for _, r := range AllRoles() {
		if rs.Has(r) {
			names = append(names, string(r))
		}
	}
	return names
}

// Validate reports roles that do not exist.
func (rs Roles) Validate() error {
	for _, r := range rs {
		if !slices.Contains(AllRoles(), r) {
			return fmt.Errorf("%q is not a role, want some of %s", r, strings.Join(Roles(nil).Names(), ", "))
		}
	}
	return nil
}
