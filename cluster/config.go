package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// Config has the settings of one node of the Raft group.
type Config struct {
	// NodeID names this node in the group; it is stored with the Raft log and must
	// stay the same for the life of the directory.
	NodeID string `mapstructure:"node_id"`
	// ElectionTimeout is how long a node waits without a leader before it stands for
	// election, at least 5ms. 50ms suits a single node; 1s suits voters on several machines.
	ElectionTimeout time.Duration `mapstructure:"election_timeout"`
	// LeaderTimeout bounds every wait for a leader, at the start and in each request.
	LeaderTimeout time.Duration `mapstructure:"leader_timeout"`
	// ApplyTimeout bounds the wait until a command is committed and applied.
	ApplyTimeout time.Duration `mapstructure:"apply_timeout"`
	// LeaseTTL is how long a learner's lease lasts without renewal; another learner may
	// take over after that. It is renewed at a third of this time.
	LeaseTTL time.Duration `mapstructure:"lease_ttl"`
	// SnapshotEntries is the number of log entries after which the state is written
	// as a snapshot and the log is cut, at least 1.
	SnapshotEntries uint64 `mapstructure:"snapshot_entries"`
}

// DefaultConfig is a single node for one machine.
func DefaultConfig() Config {
	return Config{
		NodeID:          "node-1",
		ElectionTimeout: 50 * time.Millisecond,
		LeaderTimeout:   10 * time.Second,
		ApplyTimeout:    10 * time.Second,
		LeaseTTL:        5 * time.Second,
		SnapshotEntries: 1024,
	}
}

// Validate reports the first setting that cannot work, or nil.
func (c Config) Validate() error {
	switch {
	case c.NodeID == "":
		return forager.WithHint(errors.New("cluster.node_id is empty"), "give each node its own name")
	case c.ElectionTimeout < 5*time.Millisecond:
		return fmt.Errorf("cluster.election_timeout is %v: at least 5ms is needed", c.ElectionTimeout)
	case c.LeaderTimeout < 2*c.ElectionTimeout:
		return fmt.Errorf("cluster.leader_timeout is %v: at least twice the election timeout (%v) is needed", c.LeaderTimeout, c.ElectionTimeout)
	case c.ApplyTimeout <= 0:
		return fmt.Errorf("cluster.apply_timeout is %v: it must be above 0", c.ApplyTimeout)
	case c.LeaseTTL < time.Second || c.LeaseTTL > maxTTL:
		return fmt.Errorf("cluster.lease_ttl is %v: it must lie between 1s and %v", c.LeaseTTL, maxTTL)
	case c.SnapshotEntries < 1:
		return errors.New("cluster.snapshot_entries is 0: at least 1 is needed")
	}
	return nil
}
