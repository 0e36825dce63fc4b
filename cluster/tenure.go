package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/forager-rl/forager"
)

// Tenure is a learner's lease as its holder knows it. A process may stop at any
// point for any time (a signal, a frozen container, a lost network) and cannot
// notice while it is stopped. So the holder counts by its own monotonic clock
// from when until when nobody else can have the lease, and asks the group before
// it acts at any other time. All methods may be called by several goroutines.
//
// It is the first of two fences: it keeps a former holder from trying. The
// second, the epoch that manifests, checkpoint records and replay compare, does
// not depend on clocks.
type Tenure struct {
	client *Client
	lease  Lease
	now    func() time.Time

	mu    sync.Mutex
	until time.Time // nobody else has the lease before
	over  error     // why it is lost; nil while it may hold
}

// TakeLease is AcquireLease for a holder that counts its time.
func (c *Client) TakeLease(ctx context.Context, holder string, ttl time.Duration, now func() time.Time) (*Tenure, error) {
	asked := now()
	lease, _, err := c.AcquireLease(ctx, holder, ttl)
	if err != nil {
		return nil, err
	}
	t := &Tenure{client: c, lease: lease, now: now}
	t.extend(asked)
	return t, nil
}

// Epoch is the fencing token.
func (t *Tenure) Epoch() uint64 { return t.lease.Epoch }

// Hold returns nil when nobody else can have the lease at this moment and for a
// tenth of its TTL to come, in which what it was asked for should be done. It
// asks the group when too much time has gone by since the last renewal. It
// returns forager.ErrFenced when another learner has, or had, the lease, and
// other errors when the group does not answer.
func (t *Tenure) Hold(ctx context.Context) error {
	t.mu.Lock()
	over, holds := t.over, t.now().Before(t.until)
	t.mu.Unlock()
	if over != nil || holds {
		return over
	}
	return t.renew(ctx)
}

// Keep renews the lease at each third of its TTL until ctx is done (nil) or the
// lease is lost (forager.ErrFenced). Other errors are tried again: while nobody
// else takes the lease, its holder may renew it late.
func (t *Tenure) Keep(ctx context.Context) error {
	tick := time.NewTicker(max(t.lease.TTL/3, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := t.renew(ctx); errors.Is(err, forager.ErrFenced) {
			return err
		}
	}
}

// Release frees the lease, so that the next learner need not wait. It answers
// forager.ErrFenced when another has it already.
func (t *Tenure) Release(ctx context.Context) error {
	t.mu.Lock()
	t.until = time.Time{}
	t.mu.Unlock()
	return t.client.ReleaseLease(ctx, t.lease)
}

func (t *Tenure) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.lease.TTL)
	defer cancel()
	asked := t.now()
	_, err := t.client.RenewLease(ctx, t.lease)
	switch {
	case err == nil:
		t.extend(asked)
	case errors.Is(err, forager.ErrFenced):
		t.mu.Lock()
		t.over = err
		t.mu.Unlock()
	default:
		err = fmt.Errorf("renew the lease of epoch %d: %w", t.lease.Epoch, err)
	}
	return err
}

// extend counts from before the group was asked: its own count began later.
func (t *Tenure) extend(asked time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := asked.Add(t.lease.TTL - t.lease.TTL/10); until.After(t.until) {
		t.until = until
	}
}
