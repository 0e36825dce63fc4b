package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// Config has the settings of one node of the Raft group.
type Config struct {
	// NodeID names this node in the group: 1 to 64 letters, digits, "-" and "_". It
	// is stored with the Raft log and must stay the same for the life of the directory.
	NodeID string `mapstructure:"node_id"`
	// Listen is the address on which the other nodes of the group reach this one,
	// "host:port", such as 0.0.0.0:7400. Empty: a group of one, without network.
	Listen string `mapstructure:"listen"`
	// Advertise is the "host:port" under which the others dial this node. Empty: its
	// entry in peers or, for a node that joins, listen.
	Advertise string `mapstructure:"advertise"`
	// Peers lists the voters that found the group, "id=host:port", three or five of
	// them and the same list on each. It is read when the directory is empty;
	// afterwards "forager voters" changes who votes.
	Peers []string `mapstructure:"peers"`
	// Join is for a node that is no founder: it asks the group to be let in without a
	// vote. "forager voters add" then gives it one.
	Join bool `mapstructure:"join"`
	// ElectionTimeout is how long a node waits without a leader before it stands for
	// election, at least 5ms. 0 means 50ms for a group of one and 500ms with listen.
	ElectionTimeout time.Duration `mapstructure:"election_timeout"`
	// LeaderTimeout bounds every wait for a leader in a request, and at the start of a
	// group of one.
	LeaderTimeout time.Duration `mapstructure:"leader_timeout"`
	// ApplyTimeout bounds the wait until a command is committed and applied.
	ApplyTimeout time.Duration `mapstructure:"apply_timeout"`
	// LeaseTTL is how long a learner's lease lasts without renewal; another learner may
	// take over after that. It is renewed at a third of this time.
	LeaseTTL time.Duration `mapstructure:"lease_ttl"`
	// SnapshotEntries is the number of log entries after which the state is written
	// as a snapshot and the log is cut, at least 1.
	SnapshotEntries uint64 `mapstructure:"snapshot_entries"`

	// Name is the name of the group, the run id. Nodes of other groups are refused.
	Name string `mapstructure:"-"`
	// TLS secures the connections between nodes, as server and as client; nil leaves
	// them plain.
	TLS *tls.Config `mapstructure:"-"`
	// Forward brings a request to another node of the group and its answer back; nil
	// for a node that answers only while it leads.
	Forward Forward `mapstructure:"-"`
}

// Forward carries a request to Handle of the node with an id. It ends when ctx
// does.
type Forward func(ctx context.Context, node string, request []byte) ([]byte, error)

// The election time-outs of ElectionTimeout 0.
const (
	aloneElection  = 50 * time.Millisecond
	remoteElection = 500 * time.Millisecond
)

// DefaultConfig is a single node for one machine.
func DefaultConfig() Config {
	return Config{
		NodeID:          "node-1",
		LeaderTimeout:   10 * time.Second,
		ApplyTimeout:    10 * time.Second,
		LeaseTTL:        5 * time.Second,
		SnapshotEntries: 1024,
	}
}

// election is the election time-out in effect.
func (c Config) election() time.Duration {
	switch {
	case c.ElectionTimeout != 0:
		return c.ElectionTimeout
	case c.Listen != "":
		return remoteElection
	}
	return aloneElection
}

// Validate reports the first setting that cannot work, or nil.
func (c Config) Validate() error {
	switch {
	case c.NodeID == "":
		return forager.WithHint(errors.New("cluster.node_id is empty"), "give each node its own name")
	case !isName(c.NodeID) || len(c.NodeID) > 64:
		return fmt.Errorf("cluster.node_id is %q: want 1 to 64 letters, digits, - and _", c.NodeID)
	case c.ElectionTimeout != 0 && c.ElectionTimeout < 5*time.Millisecond:
		return fmt.Errorf("cluster.election_timeout is %v: at least 5ms is needed, or 0 for the default", c.ElectionTimeout)
	case c.LeaderTimeout < 2*c.election():
		return fmt.Errorf("cluster.leader_timeout is %v: at least twice the election timeout (%v) is needed", c.LeaderTimeout, c.election())
	case c.ApplyTimeout <= 0:
		return fmt.Errorf("cluster.apply_timeout is %v: it must be above 0", c.ApplyTimeout)
	case c.LeaseTTL < time.Second || c.LeaseTTL > maxTTL:
		return fmt.Errorf("cluster.lease_ttl is %v: it must lie between 1s and %v", c.LeaseTTL, maxTTL)
	case c.SnapshotEntries < 1:
		return errors.New("cluster.snapshot_entries is 0: at least 1 is needed")
	}
	return c.validatePeers()
}
