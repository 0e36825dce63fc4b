package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// Caller carries a request to a node of the group and brings its answer back.
type Caller interface {
	Call(ctx context.Context, request []byte) ([]byte, error)
}

// The bounds of a request that meets no leader: a change of leaders takes a
// second or two.
const (
	retryFor    = 10 * time.Second // in all, less when ctx ends
	attemptWait = 4 * time.Second  // for one answer: a node that hangs is not waited for
	firstPause  = 20 * time.Millisecond
	longPause   = 500 * time.Millisecond
)

// Client speaks to the group. While the group has no leader it tries again, for
// at most 10 seconds. Besides the errors named at each method, all of them then
// answer ErrUnavailable, ErrNotLeader and the errors of the Caller. All may be
// repeated when the outcome is unknown, and are.
type Client struct {
	caller Caller
}

// NewClient makes a client over any transport.
func NewClient(caller Caller) *Client { return &Client{caller: caller} }

// SetRun gives the group its run; later calls check that it is the same. It
// answers ErrOtherRun when the group keeps another run or other settings.
func (c *Client) SetRun(ctx context.Context, run Run) error {
	_, err := c.apply(ctx, Command{SetRun: &SetRun{Run: run}})
	return err
}

// AcquireLease takes the learner's lease under a new epoch and tells the
// manifest that is current at that moment, nil before the first. It answers
// forager.ErrInUse while another holder's lease lasts.
func (c *Client) AcquireLease(ctx context.Context, holder string, ttl time.Duration) (Lease, *forager.Manifest, error) {
	r, err := c.apply(ctx, Command{AcquireLease: &AcquireLease{Holder: holder, TTL: ttl}})
	if err != nil {
		return Lease{}, nil, err
	}
	if r.Lease == nil {
		return Lease{}, nil, fmt.Errorf("acquire lease: the answer has none: %w", forager.ErrSchema)
	}
	return *r.Lease, r.Manifest, nil
}

// RenewLease extends a lease by its TTL. It answers forager.ErrFenced when the
// lease is no longer the newest.
func (c *Client) RenewLease(ctx context.Context, lease Lease) (Lease, error) {
	r, err := c.apply(ctx, Command{RenewLease: &RenewLease{Holder: lease.Holder, Epoch: lease.Epoch}})
	if err != nil {
		return Lease{}, err
	}
	if r.Lease == nil {
		return Lease{}, fmt.Errorf("renew lease: the answer has none: %w", forager.ErrSchema)
	}
	return *r.Lease, nil
}

// ReleaseLease frees the lease, so that the next learner need not wait. It
// answers forager.ErrFenced when another has it already.
func (c *Client) ReleaseLease(ctx context.Context, lease Lease) error {
	_, err := c.apply(ctx, Command{ReleaseLease: &ReleaseLease{Holder: lease.Holder, Epoch: lease.Epoch}})
	return err
}

// PublishManifest makes a manifest the current one. Its weights are in the
// object store and its checkpoint is on disk before (see the package comment).
// It answers forager.ErrFenced, forager.ErrStale and ErrOtherRun.
func (c *Client) PublishManifest(ctx context.Context, m forager.Manifest) error {
	_, err := c.apply(ctx, Command{PublishManifest: &PublishManifest{Manifest: m}})
	return err
}

// Manifest is the current manifest, or forager.ErrNotFound before the first.
func (c *Client) Manifest(ctx context.Context) (forager.Manifest, error) {
	s, err := c.State(ctx)
	if err != nil {
		return forager.Manifest{}, err
	}
	if s.Manifest == nil {
		return forager.Manifest{}, fmt.Errorf("weights manifest: %w: none is published yet", forager.ErrNotFound)
	}
	return *s.Manifest, nil
}

// AddCheckpoint records a complete checkpoint of the holder of an epoch. It
// answers forager.ErrFenced, and forager.ErrStale behind one of the same epoch.
func (c *Client) AddCheckpoint(ctx context.Context, epoch uint64, checkpoint Checkpoint) error {
	_, err := c.apply(ctx, Command{AddCheckpoint: &AddCheckpoint{Epoch: epoch, Checkpoint: checkpoint}})
	return err
}

// State reads everything that the group has agreed on.
func (c *Client) State(ctx context.Context) (State, error) {
	r, err := c.call(ctx, request{Read: readState})
	if err != nil {
		return State{}, err
	}
	if r.State == nil {
		return State{}, fmt.Errorf("read cluster state: the answer has none: %w", forager.ErrSchema)
	}
	return *r.State, nil
}

func (c *Client) apply(ctx context.Context, cmd Command) (Result, error) {
	r, err := c.call(ctx, request{Command: &cmd})
	return r.Result, err
}

// call sends a request until it is answered, with growing pauses, for as long as
// the group has no leader.
func (c *Client) call(ctx context.Context, r request) (response, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return response{}, fmt.Errorf("encode cluster request: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		answer, err := c.attempt(bounded, data)
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
			return answer, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-bounded.Done():
			timer.Stop()
			return answer, err
		}
	}
}

// attempt sends a request once. No answer in time is ErrUnavailable.
func (c *Client) attempt(ctx context.Context, data []byte) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	answer, err := c.caller.Call(ctx, data)
	switch {
	case err != nil && ctx.Err() != nil:
		return response{}, unavailable("call the raft group", err)
	case err != nil:
		return response{}, fmt.Errorf("call the raft group: %w", err)
	}
	var out response
	if err := json.Unmarshal(answer, &out); err != nil {
		return response{}, fmt.Errorf("decode cluster answer: %w: %w", forager.ErrSchema, err)
	}
	if out.Error != nil {
		return response{}, out.Error.err()
	}
	return out, nil
}

// Servers lists the nodes of the group.
func (c *Client) Servers(ctx context.Context) ([]Server, error) {
	r, err := c.call(ctx, request{Read: readServers})
	return r.Servers, err
}

// Status tells how the node that answers sees the group.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, err := c.call(ctx, request{Read: readStatus})
	if err != nil {
		return Status{}, err
	}
	if r.Status == nil {
		return Status{}, fmt.Errorf("read cluster status: the answer has none: %w", forager.ErrSchema)
	}
	return *r.Status, nil
}

// AddNonvoter lets a node in that follows without a vote, or tells the group the
// new address of a node. Address is the host:port under which the others dial it.
func (c *Client) AddNonvoter(ctx context.Context, id, address string) error {
	return c.change(ctx, change{Op: opAdmit, ID: id, Address: address})
}

// AddVoter gives a vote to a node of the group that has caught up. It answers
// forager.ErrNotFound for a node that was not let in.
func (c *Client) AddVoter(ctx context.Context, id string) error {
	return c.change(ctx, change{Op: opPromote, ID: id})
}

// RemoveVoter takes a node out of the group, whether it has a vote or not. It
// answers forager.ErrNotFound for a node that is not in it.
func (c *Client) RemoveVoter(ctx context.Context, id string) error {
	return c.change(ctx, change{Op: opRemove, ID: id})
}

// Transfer hands the lead to a voter, or to the one that is most up to date when
// id is empty.
func (c *Client) Transfer(ctx context.Context, id string) error {
	return c.change(ctx, change{Op: opTransfer, ID: id})
}

func (c *Client) change(ctx context.Context, ch change) error {
	_, err := c.call(ctx, request{Change: &ch})
	return err
}
