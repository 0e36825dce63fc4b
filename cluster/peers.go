package cluster

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// parsePeers reads the list of founding voters, ordered by id, so that each node
// founds the same group whatever the order in its settings.
func parsePeers(list []string) ([]raft.Server, error) {
	var servers []raft.Server
	for _, text := range list {
		id, address, ok := strings.Cut(strings.TrimSpace(text), "=")
		if !ok || !isName(id) {
			return nil, fmt.Errorf("cluster.peers has %q: want id=host:port", text)
		}
		if err := checkAddress(address); err != nil {
			return nil, fmt.Errorf("cluster.peers has %q: %w", text, err)
		}
		for _, s := range servers {
			if string(s.ID) == id || string(s.Address) == address {
				return nil, fmt.Errorf("cluster.peers has %q and \"%s=%s\": each node needs an id and an address of its own", text, s.ID, s.Address)
			}
		}
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(address)})
	}
	slices.SortFunc(servers, func(a, b raft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return servers, nil
}

// checkAddress wants an address that others can dial.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return fmt.Errorf("address %q: want host:port", address)
	case port == "" || port == "0":
		return fmt.Errorf("address %q has no port that others can dial", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("address %q names no host that others can dial", address)
	}
	return nil
}

// validatePeers reports settings of the network that cannot work together.
func (c Config) validatePeers() error {
	if c.Listen == "" {
		if len(c.Peers) > 0 || c.Join || c.Advertise != "" {
			return forager.WithHint(errors.New("cluster.peers, join and advertise need cluster.listen"), "give the address for the other nodes, such as 0.0.0.0:7400")
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("cluster.listen is %q: want host:port", c.Listen)
	}
	servers, err := parsePeers(c.Peers)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == c.NodeID })
	switch {
	case c.Join && i >= 0:
		return forager.WithHint(fmt.Errorf("cluster.join is set, and %q is in cluster.peers", c.NodeID), "a founder does not join: leave out one of them")
	case c.Join:
		if err := checkAddress(c.Advertised()); err != nil {
			return forager.WithHint(fmt.Errorf("cluster.advertise: %w", err), "give the host:port under which the other nodes reach this one")
		}
	case i < 0:
		return forager.WithHint(fmt.Errorf("cluster.node_id %q is not in cluster.peers %v", c.NodeID, c.Peers),
			"give every founder the same list with all of them, or set cluster.join for a node that comes later")
	case c.Advertise != "" && c.Advertise != string(servers[i].Address):
		return forager.WithHint(fmt.Errorf("cluster.advertise is %q, and cluster.peers says %q of %q", c.Advertise, servers[i].Address, c.NodeID),
			"leave cluster.advertise empty, or make them equal")
	}
	return nil
}

// Advertised is the address under which the others dial this node.
func (c Config) Advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	for _, text := range c.Peers {
		if id, address, _ := strings.Cut(strings.TrimSpace(text), "="); id == c.NodeID {
			return address
		}
	}
	return c.Listen
}

// isName says whether a text is made of letters, digits, "-" and "_", and so may
// be part of a subject on the bus.
func isName(s string) bool {
	for _, r := range s {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != ""
}
