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
	leaderLook   = time.Second          // how often Run looks who leads
	shutdownWait = 10 * time.Second     // for the Raft library to end its goroutines
)

// Cluster is one node of the Raft group. All methods may be called at the same
// time from several goroutines.
type Cluster struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	fsm  *fsm
	raft *raft.Raft

	// caughtUp is the last Raft term in which this node, as leader, has applied
	// everything of earlier terms.
	caughtUp atomic.Uint64

	close func() error // runs once
}

// Status is a node's own view of the group.
type Status struct {
	NodeID  string `json:"node_id"`
	Leader  string `json:"leader"` // "" when none is known
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied"` // index of the newest applied log entry
}

// node is what start needs beyond the settings; Open fills it from disk.
type node struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	transport raft.Transport
	voters    []raft.Server // the group to found when the stores are empty
	release   func() error  // called after Raft has ended
}

// start starts Raft on a node's parts, founding the group when they are empty.
func start(cfg Config, n node, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	c := &Cluster{cfg: cfg, log: log, now: now, fsm: &fsm{}}
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(cfg.NodeID)
	rc.HeartbeatTimeout = cfg.ElectionTimeout
	rc.ElectionTimeout = cfg.ElectionTimeout
	rc.LeaderLeaseTimeout = cfg.ElectionTimeout
	rc.CommitTimeout = max(cfg.ElectionTimeout/10, time.Millisecond)
	rc.SnapshotThreshold = cfg.SnapshotEntries
	rc.SnapshotInterval = 10 * time.Second
	rc.TrailingLogs = cfg.SnapshotEntries
	rc.NoLegacyTelemetry = true
	rc.Logger = raftLogger(log)

	existing, err := raft.HasExistingState(n.logs, n.stable, n.snapshots)
	if err != nil {
		return nil, fmt.Errorf("read raft state: %w: %w", forager.ErrCorrupt, err)
	}
	if !existing {
		if err := raft.BootstrapCluster(rc, n.logs, n.stable, n.snapshots, n.transport, raft.Configuration{Servers: n.voters}); err != nil {
			return nil, fmt.Errorf("found raft group: %w", err)
		}
	}
	if c.raft, err = raft.NewRaft(rc, c.fsm, n.logs, n.stable, n.snapshots, n.transport); err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	c.close = sync.OnceValue(func() error {
		done := make(chan error, 1)
		go func() { done <- c.raft.Shutdown().Error() }() // ends with Raft's own goroutines
		select {
		case err := <-done:
			return errors.Join(err, n.release())
		case <-time.After(shutdownWait):
			return fmt.Errorf("wait for raft to shut down: not done after %v", shutdownWait)
		}
	})
	if err := c.checkMember(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// checkMember finds a directory that belongs to another node, which would wait
// for a leader for ever.
func (c *Cluster) checkMember() error {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("read raft members: %w", err)
	}
	var names []raft.ServerID
	for _, s := range f.Configuration().Servers {
		if s.ID == raft.ServerID(c.cfg.NodeID) {
			return nil
		}
		names = append(names, s.ID)
	}
	return forager.WithHint(fmt.Errorf("raft state belongs to %v, not to %q", names, c.cfg.NodeID),
		"set cluster.node_id to the name that the directory was made with")
}

// Run waits for a leader, then logs whenever this node comes to lead or ceases
// to, until ctx is done. It returns nil after ctx is done and ErrUnavailable when
// no leader came up within LeaderTimeout. Close is the caller's to call
// afterwards.
func (c *Cluster) Run(ctx context.Context) error {
	if err := c.WaitLeader(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	tick := time.NewTicker(leaderLook)
	defer tick.Stop()
	led := !c.leads()
	for {
		if now := c.leads(); now != led {
			led = now
			c.log.Info("raft leadership", "node", c.cfg.NodeID, "leads", led, "leader", c.Status().Leader)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Apply stamps a command with this node's clock, has the group agree on it and
// gives its result. It answers ErrNotLeader on a node that does not lead,
// ErrUnavailable when the group did not agree in time (the command may have been
// applied; repeating it is safe), and the errors of State.Apply.
func (c *Cluster) Apply(ctx context.Context, cmd Command) (Result, error) {
	if err := c.lead(ctx); err != nil {
		return Result{}, err
	}
	cmd.Now = c.now().UTC()
	data, err := cmd.encode()
	if err != nil {
		return Result{}, err
	}
	f := c.raft.Apply(data, c.cfg.ApplyTimeout)
	if err := c.await(ctx, "wait for raft to apply a command", f); err != nil {
		return Result{}, err
	}
	o, ok := f.Response().(outcome)
	if !ok {
		return Result{}, fmt.Errorf("raft answered a command with %T", f.Response())
	}
	return o.result, o.err
}

// State gives a copy of the state that holds everything acknowledged before the
// call. It answers the errors of Apply.
func (c *Cluster) State(ctx context.Context) (State, error) {
	if err := c.lead(ctx); err != nil {
		return State{}, err
	}
	// A leader holds all that its own term acknowledged. One barrier a term
	// brings in the earlier terms; VerifyLeader excludes a newer leader.
	term := c.raft.CurrentTerm()
	if c.caughtUp.Load() != term {
		if err := c.await(ctx, "wait for raft to catch up", c.raft.Barrier(c.cfg.ApplyTimeout)); err != nil {
			return State{}, err
		}
		c.caughtUp.Store(term)
	}
	if err := c.await(ctx, "wait for raft to confirm its leader", c.raft.VerifyLeader()); err != nil {
		return State{}, err
	}
	if now := c.raft.CurrentTerm(); now != term {
		return State{}, unavailable("read the state", fmt.Errorf("the term changed from %d to %d meanwhile", term, now))
	}
	return c.fsm.read(), nil
}

// await bounds the wait for a Raft future by ApplyTimeout and ctx.
func (c *Cluster) await(ctx context.Context, wait string, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends when Raft decides, at the latest when it shuts down
	timeout := time.NewTimer(c.cfg.ApplyTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader):
			return c.notLeader()
		default:
			return unavailable(wait, err)
		}
	case <-ctx.Done():
		return unavailable(wait, ctx.Err())
	case <-timeout.C:
		return unavailable(wait, fmt.Errorf("not done after %v", c.cfg.ApplyTimeout))
	}
}

// WaitLeader waits until the group has a leader, at most LeaderTimeout.
func (c *Cluster) WaitLeader(ctx context.Context) error {
	const wait = "wait for a raft leader"
	timeout := time.NewTimer(c.cfg.LeaderTimeout)
	defer timeout.Stop()
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		if c.raft.State() == raft.Shutdown {
			return unavailable(wait, errors.New("this node is closed"))
		}
		if _, id := c.raft.LeaderWithID(); id != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return unavailable(wait, ctx.Err())
		case <-timeout.C:
			return unavailable(wait, fmt.Errorf("none after %v", c.cfg.LeaderTimeout))
		case <-poll.C:
		}
	}
}

// lead returns nil when this node leads, once there is a leader at all.
func (c *Cluster) lead(ctx context.Context) error {
	if c.leads() {
		return nil
	}
	if err := c.WaitLeader(ctx); err != nil {
		return err
	}
	if !c.leads() {
		return c.notLeader()
	}
	return nil
}

func (c *Cluster) leads() bool { return c.raft.State() == raft.Leader }

func (c *Cluster) notLeader() error {
	return fmt.Errorf("node %q: %w, which is %q", c.cfg.NodeID, ErrNotLeader, c.Status().Leader)
}

// Status gives this node's view of the group without asking the others.
func (c *Cluster) Status() Status {
	_, leader := c.raft.LeaderWithID()
	return Status{NodeID: c.cfg.NodeID, Leader: string(leader), Term: c.raft.CurrentTerm(), Applied: c.raft.AppliedIndex()}
}

// View is Status with the voters, for others to see.
func (c *Cluster) View() View {
	status := c.Status()
	v := View{Node: status.NodeID, Leader: status.Leader, Term: status.Term}
	if f := c.raft.GetConfiguration(); f.Error() == nil { // it is kept in memory and does not wait
		for _, s := range f.Configuration().Servers {
			if s.Suffrage == raft.Voter {
				v.Voters = append(v.Voters, string(s.ID))
			}
		}
	}
	slices.Sort(v.Voters)
	return v
}

// Close stops Raft and closes its files. Calling it again does nothing.
func (c *Cluster) Close() error { return c.close() }
