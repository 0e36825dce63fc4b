package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// The bounds of waits that no setting changes.
const (
	leaderPoll   = 2 * time.Millisecond // how often a wait for a leader looks
	houseEvery   = time.Second          // how often Run looks after this node
	answersWait  = 5 * time.Second      // for the Raft library to answer what it was asked, before it ends
	shutdownWait = 10 * time.Second     // for it to end its goroutines
	maxQuestions = 32                   // at a time; the library takes 64
)

// Cluster is one node of the Raft group. All methods may be called at the same
// time from several goroutines.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	begun time.Time // from now
	fsm   *fsm
	disk  *disk
	layer *layer // nil without network
	raft  *raft.Raft

	transport *mended

	// settled is the last Raft term that this node has begun as leader: everything
	// of earlier terms is applied, and the lease is in this node's time.
	settled  atomic.Uint64
	settling chan struct{} // holds one token while a term is begun

	// questions holds a token for each question that the Raft library would leave
	// without an answer when it shuts down.
	questions chan struct{}
	closing   chan struct{} // closed when it is about to shut down

	limiter *limiter
	halt    func() error // runs once
	close   func() error // runs once
}

// Status is a node's own view of the group.
type Status struct {
	NodeID    string            `json:"node_id"`
	Leader    string            `json:"leader"` // "" when none is known
	Term      uint64            `json:"term"`
	Applied   uint64            `json:"applied"`           // index of the newest applied log entry
	Committed uint64            `json:"committed"`         // of the newest one that a majority has, as far as this node knows
	Voter     bool              `json:"voter"`             // this node has a vote
	Unknown   uint64            `json:"unknown,omitempty"` // log entries that this program does not understand
	Refused   map[string]uint64 `json:"refused,omitempty"` // connections by reason
}

// node is what start needs beyond the settings; Open fills it from disk.
type node struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	transport wire
	layer     *layer
	voters    []raft.Server // the group to found when the stores are empty; nil: wait to be let in
	release   func() error  // called after Raft has ended
}

// start starts Raft on a node's parts, founding the group when they are empty.
// On an error the parts are the caller's to release.
func start(cfg Config, n node, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	c := &Cluster{
		cfg: cfg, log: log, now: now, begun: now(), fsm: &fsm{log: log}, disk: newDisk(n.logs, n.stable, log), layer: n.layer,
		settling: make(chan struct{}, 1), questions: make(chan struct{}, maxQuestions), closing: make(chan struct{}), limiter: newLimiter(now),
	}
	rc := raftConfig(&cfg, log, now)
	existing, err := raft.HasExistingState(n.logs, n.stable, n.snapshots)
	if err != nil {
		return nil, fmt.Errorf("read raft state: %w: %w", forager.ErrCorrupt, err)
	}
	if !existing && len(n.voters) > 0 {
		if err := raft.BootstrapCluster(rc, n.logs, n.stable, n.snapshots, n.transport, raft.Configuration{Servers: n.voters}); err != nil {
			return nil, fmt.Errorf("found raft group: %w", err)
		}
	}
	noted, err := noteSnapshots(n.snapshots)
	if err != nil {
		return nil, fmt.Errorf("read raft snapshots: %w", err)
	}
	c.transport = &mended{wire: n.transport, snapshots: noted, rpcs: make(chan raft.RPC), done: make(chan struct{})}
	started := make(chan struct{})
	if n.layer != nil {
		n.layer.nodeAt = func(a raft.ServerAddress) (string, bool) {
			<-started // at once: Raft dials as soon as it runs
			return c.nodeAt(a)
		}
	}
	c.raft, err = raft.NewRaft(rc, c.fsm, c.disk, c.disk, noted, c.transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", errors.Join(err, c.fsm.refusal()))
	}
	close(started)
	c.fsm.onInstall(func() error { return c.transport.trim(c) })
	go c.transport.run(c) // ends in shutdown
	c.halt = sync.OnceValue(c.shutdown)
	c.close = sync.OnceValue(func() error { return c.end(n) })
	if err := c.checkMember(); err != nil {
		return nil, errors.Join(err, c.halt())
	}
	return c, nil
}

func raftConfig(cfg *Config, log *slog.Logger, now func() time.Time) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(cfg.NodeID)
	rc.HeartbeatTimeout = cfg.election()
	rc.ElectionTimeout = cfg.election()
	rc.LeaderLeaseTimeout = cfg.election()
	rc.CommitTimeout = max(cfg.election()/10, time.Millisecond)
	rc.SnapshotThreshold = cfg.SnapshotEntries
	rc.SnapshotInterval = 10 * time.Second
	rc.TrailingLogs = cfg.SnapshotEntries
	rc.NoLegacyTelemetry = true
	rc.Logger = raftLogger(log, now)
	return rc
}

// end hands the lead on and stops everything.
func (c *Cluster) end(n node) error {
	c.handOver()
	if err := c.halt(); err != nil {
		return err
	}
	return n.release()
}

// shutdown stops Raft without handing the lead on, and leaves the files open.
func (c *Cluster) shutdown() error {
	close(c.closing)
	patience, cancel := context.WithTimeout(context.Background(), answersWait)
	defer cancel()
	for range maxQuestions {
		select {
		case c.questions <- struct{}{}:
		case <-patience.Done():
		}
	}
	stopped := c.raft.Shutdown()
	err := c.transport.Close() // ends what Raft waits for
	close(c.transport.done)
	done := make(chan error, 1)
	go func() { done <- stopped.Error() }() // ends with Raft's own goroutines
	select {
	case stop := <-done:
		return errors.Join(err, stop)
	case <-time.After(shutdownWait):
		return fmt.Errorf("wait for raft to shut down: not done after %v", shutdownWait)
	}
}

// checkMember finds a directory that belongs to another node, which would wait
// for a leader for ever. A node that joins belongs to no group at first.
func (c *Cluster) checkMember() error {
	servers := c.configuration()
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == c.cfg.NodeID })
	switch {
	case i < 0 && (c.cfg.Join || len(servers) == 0):
		return nil
	case i < 0:
		var names []raft.ServerID
		for _, s := range servers {
			names = append(names, s.ID)
		}
		return forager.WithHint(fmt.Errorf("raft state belongs to %v, not to %q", names, c.cfg.NodeID),
			"set cluster.node_id to the name that the directory was made with")
	case c.layer != nil && string(servers[i].Address) != c.layer.advertised:
		c.log.Warn("the group knows this node under another address: change it with \"forager voters add\"",
			"node", c.cfg.NodeID, "known", string(servers[i].Address), "advertised", c.layer.advertised)
	}
	return nil
}

// configuration is the newest list of the group's nodes that this one has.
func (c *Cluster) configuration() []raft.Server {
	return c.raft.GetConfiguration().Configuration().Servers // never fails, never waits
}

// nodeAt gives the id of the node with an address.
func (c *Cluster) nodeAt(address raft.ServerAddress) (string, bool) {
	for _, s := range c.configuration() {
		if s.Address == address {
			return string(s.ID), true
		}
	}
	return "", false
}

// Run keeps house until ctx is done: it notices what happens to this node. It
// returns nil after ctx is done, and an error when this node can take no more part: its
// storage failed, it was removed from the group or, in a group of one, no leader
// came up within LeaderTimeout. Close is the caller's to call afterwards.
func (c *Cluster) Run(ctx context.Context) error {
	if c.cfg.Listen == "" {
		if err := c.WaitLeader(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	h := house{Cluster: c, seen: c.now()}
	for {
		if err := h.keep(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.disk.failed:
			return c.disk.failure()
		case <-c.raft.LeaderCh():
		case <-tick.C:
		}
	}
}

// house is what Run remembers.
type house struct {
	*Cluster
	leader string
	seen   time.Time // when there was a leader last
	member bool      // this node has been part of the group
}

func (h *house) keep(ctx context.Context) error {
	s := h.Status()
	member := slices.ContainsFunc(h.configuration(), func(v raft.Server) bool { return string(v.ID) == h.cfg.NodeID })
	if h.member && !member || h.raft.State() == raft.Shutdown && !h.closed() {
		return forager.WithHint(fmt.Errorf("raft: node %q was removed from the group", h.cfg.NodeID),
			"to bring it back, start it with an empty directory and cluster.join")
	}
	h.member = member
	if s.Leader != h.leader {
		h.log.Info("raft leader", "node", h.cfg.NodeID, "leader", s.Leader, "term", s.Term)
		h.leader = s.Leader
	}
	if s.Leader != "" {
		h.seen = h.now()
	} else if away := h.now().Sub(h.seen); away > h.cfg.LeaderTimeout && h.limiter.allow("no leader") {
		h.log.Warn("this node knows no raft leader: a majority of the voters must be up and reach each other; if they are, it was removed from the group while it was behind, and can be stopped",
			"node", h.cfg.NodeID, "since", away.Round(time.Second), "voters", h.servers())
	}
	if !h.leads() {
		return nil
	}
	if h.fsm.behind() {
		h.handOver()
		return nil
	}
	if _, err := h.settle(ctx); err != nil && ctx.Err() == nil {
		h.log.Debug("begin a raft term: it is tried again", "error", err)
	}
	return nil
}

// Status gives this node's view of the group without asking the others.
func (c *Cluster) Status() Status {
	_, leader := c.raft.LeaderWithID()
	s := Status{
		NodeID: c.cfg.NodeID, Leader: string(leader), Term: c.raft.CurrentTerm(),
		Applied: c.raft.AppliedIndex(), Committed: c.raft.CommitIndex(), Unknown: c.fsm.unknown.Load(),
	}
	for _, v := range c.configuration() {
		s.Voter = s.Voter || string(v.ID) == c.cfg.NodeID && v.Suffrage == raft.Voter
	}
	if c.layer != nil {
		s.Refused = map[string]uint64{}
		for reason, n := range c.layer.refused {
			s.Refused[string(reason)] = n.Load()
		}
	}
	return s
}

// View is Status with the voters, for others to see.
func (c *Cluster) View() View {
	status := c.Status()
	v := View{Node: status.NodeID, Leader: status.Leader, Term: status.Term}
	for _, s := range c.configuration() {
		if s.Suffrage == raft.Voter {
			v.Voters = append(v.Voters, string(s.ID))
		}
	}
	slices.Sort(v.Voters)
	return v
}

// closed says whether this process is closing the node.
func (c *Cluster) closed() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// Close hands the lead on, if this node has it, stops Raft and closes its files.
// Calling it again does nothing.
func (c *Cluster) Close() error { return c.close() }
