package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/forager-rl/forager"
)

// Caller carries a request to a node of the group and brings its answer back.
type Caller interface {
	Call(ctx context.Context, request []byte) ([]byte, error)
}

// Client speaks to the group. Besides the errors named at each method, all of
// them answer ErrUnavailable, ErrNotLeader and the errors of the Caller. All may
// be repeated when the outcome is unknown.
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
// answers forager.ErrFenced.
func (c *Client) AddCheckpoint(ctx context.Context, epoch uint64, checkpoint Checkpoint) error {
	_, err := c.apply(ctx, Command{AddCheckpoint: &AddCheckpoint{Epoch: epoch, Checkpoint: checkpoint}})
	return err
}

// Register announces an instance of a service for ttl, or for good when ttl is
// 0. It is called again to extend the time. It answers forager.ErrFull.
func (c *Client) Register(ctx context.Context, service Service, ttl time.Duration) error {
	_, err := c.apply(ctx, Command{Register: &Register{Service: service, TTL: ttl}})
	return err
}

// Deregister removes an instance of a service; an absent one is no error.
func (c *Client) Deregister(ctx context.Context, name, instance string) error {
	_, err := c.apply(ctx, Command{Deregister: &Deregister{Name: name, Instance: instance}})
	return err
}

// Lookup gives the instances of a service, at least one, or forager.ErrNotFound.
func (c *Client) Lookup(ctx context.Context, name string) ([]Service, error) {
	s, err := c.State(ctx)
	if err != nil {
		return nil, err
	}
	found := s.Lookup(name)
	if len(found) == 0 {
		return nil, fmt.Errorf("service %q: %w: no instance is registered", name, forager.ErrNotFound)
	}
	return found, nil
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

func (c *Client) call(ctx context.Context, r request) (response, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return response{}, fmt.Errorf("encode cluster request: %w", err)
	}
	answer, err := c.caller.Call(ctx, data)
	if err != nil {
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
