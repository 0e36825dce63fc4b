package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Apply stamps a command with this node's clock, has the group agree on it and
// gives its result. It answers ErrNotLeader on a node that does not lead,
// ErrUnavailable when the group did not agree in time (the command may have been
// applied; repeating it is safe), and the errors of State.Apply.
func (c *Cluster) Apply(ctx context.Context, cmd Command) (Result, error) {
	term, err := c.settle(ctx)
	if err != nil {
		return Result{}, err
	}
	return c.propose(ctx, term, cmd)
}

// propose has the group agree on a command in one term of this leader. In
// another term it changes nothing.
func (c *Cluster) propose(ctx context.Context, term uint64, cmd Command) (Result, error) {
	cmd.Now, cmd.Term = c.stamp(), term
	data, err := cmd.encode()
	if err != nil {
		return Result{}, err
	}
	var f raft.ApplyFuture
	err = c.await(ctx, "wait for raft to apply a command", func() raft.Future {
		f = c.raft.Apply(data, c.limit(ctx))
		return f
	})
	if err != nil {
		return Result{}, err
	}
	o, ok := f.Response().(outcome)
	if !ok {
		return Result{}, fmt.Errorf("raft answered a command with %T", f.Response())
	}
	return o.result, o.err
}

// stamp is the time of a command. It only moves forward, whatever is done to the
// clock of the machine meanwhile.
func (c *Cluster) stamp() time.Time { return c.begun.Add(c.now().Sub(c.begun)).UTC().Round(0) }

// settle begins a term on the node that leads, once: everything of earlier terms
// is applied, and the lease runs by this node's clock, because clocks of leaders
// differ. In a group of one it is the same clock as before, and the lease keeps
// its time.
func (c *Cluster) settle(ctx context.Context) (term uint64, err error) {
	if err := c.lead(ctx); err != nil {
		return 0, err
	}
	term = c.raft.CurrentTerm()
	if c.settled.Load() == term {
		return term, nil
	}
	select {
	case c.settling <- struct{}{}:
		defer func() { <-c.settling }()
	case <-ctx.Done():
		return 0, unavailable("wait for the raft leader to begin its term", ctx.Err())
	}
	if c.settled.Load() == term {
		return term, nil
	}
	if _, err := c.propose(ctx, term, Command{RebaseLease: &RebaseLease{Extend: len(c.configuration()) > 1}}); err != nil {
		return 0, err
	}
	c.settled.Store(term)
	return term, nil
}

// State gives a copy of the state that holds everything acknowledged before the
// call. It answers the errors of Apply.
func (c *Cluster) State(ctx context.Context) (State, error) {
	// A leader that has begun its term holds all that was acknowledged; asking a
	// majority excludes a newer leader.
	term, err := c.settle(ctx)
	if err != nil {
		return State{}, err
	}
	if err := c.await(ctx, "wait for raft to confirm its leader", c.raft.VerifyLeader); err != nil {
		return State{}, err
	}
	if now := c.raft.CurrentTerm(); now != term {
		return State{}, unavailable("read the state", fmt.Errorf("the term changed from %d to %d meanwhile", term, now))
	}
	return c.fsm.read(), nil
}

// limit is ApplyTimeout, or what is left of ctx when that is less.
func (c *Cluster) limit(ctx context.Context) time.Duration {
	limit := c.cfg.ApplyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	return max(limit, time.Millisecond) // 0 would mean no limit
}

// await asks Raft for something and bounds the wait by ApplyTimeout and ctx. What
// the library has only noted it never answers once it shuts down: this node does
// so when all questions are answered.
func (c *Cluster) await(ctx context.Context, wait string, ask func() raft.Future) error {
	select {
	case <-c.closing: // first, of the two
		return unavailable(wait, errClosed)
	default:
	}
	select {
	case c.questions <- struct{}{}:
	case <-c.closing:
		return unavailable(wait, errClosed)
	case <-ctx.Done():
		return unavailable(wait, ctx.Err())
	}
	done := make(chan error, 1)
	go func() { // ends when Raft decides
		done <- ask().Error()
		<-c.questions
	}()
	return c.decided(ctx, wait, done)
}

var errClosed = errors.New("this node is closed")

func (c *Cluster) decided(ctx context.Context, wait string, done <-chan error) error {
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
			return unavailable(wait, errClosed)
		}
		if _, id := c.raft.LeaderWithID(); id != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return unavailable(wait, ctx.Err())
		case <-c.disk.failed:
			return unavailable(wait, c.disk.failure())
		case <-timeout.C:
			return unavailable(wait, fmt.Errorf("none after %v", c.cfg.LeaderTimeout))
		case <-poll.C:
		}
	}
}

// lead returns nil when this node leads, once there is a leader at all.
func (c *Cluster) lead(ctx context.Context) error {
	if !c.leads() {
		if err := c.WaitLeader(ctx); err != nil {
			return err
		}
	}
	switch {
	case !c.leads():
		return c.notLeader()
	case c.fsm.behind():
		return unavailable("lead the raft group", errNewerProgram)
	}
	return nil
}

func (c *Cluster) leads() bool { return c.raft.State() == raft.Leader }

func (c *Cluster) notLeader() error {
	return fmt.Errorf("node %q: %w, which is %q", c.cfg.NodeID, ErrNotLeader, c.Status().Leader)
}
