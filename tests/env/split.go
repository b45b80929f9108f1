package env

import "slices"

// SplitNATS leaves one of the Brokers and the processes with these names with
// each other, and all others, too; it needs Proxied. Processes find out at once
// that they have to go to a server of their side; the servers do if they are
// to notice, else nothing comes any more. Gossip goes on.
func (c *Cluster) SplitNATS(server string, here []string, notice bool) (heal func()) {
	c.t.Helper()
	var there []string
	for _, b := range c.Brokers {
		if b.Name != server {
			there = append(there, b.Name)
		}
	}
	join := c.Routes.Split(notice, server)
	for _, n := range c.Nodes {
		if slices.Contains(here, n.Name) {
			n.Link.Only(server)
		} else {
			n.Link.Only(there...)
		}
	}
	return func() {
		join()
		for _, n := range c.Nodes {
			n.Link.Heal()
		}
	}
}
