package rewardsrv

import (
	"context"
	"sync"
	"time"
)

// releaseTimeout bounds the return of a claim. One that is not returned costs
// the other servers the wait for a lease.
const releaseTimeout = 2 * time.Second

// held is a claim that is renewed, so that nobody thinks its holder dead, until
// it is kept or given back. A nil one stands for a server without others.
type held struct {
	claims Claims
	key    string
	lease  time.Duration
	ctx    context.Context //nolint:containedctx // of the renewals, which this struct bounds
	cancel context.CancelFunc

	mu       sync.Mutex
	revision uint64
	timer    *time.Timer
}

// hold renews a claim that was won every third of a lease. lost, which may be
// nil, is called when somebody else has taken it over.
func hold(ctx context.Context, claims Claims, key string, revision uint64, lease time.Duration, lost func()) *held {
	if claims == nil {
		return nil
	}
	h := &held{claims: claims, key: key, lease: lease, revision: revision}
	h.ctx, h.cancel = context.WithCancel(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(lease/3, func() { h.renew(lost) })
	return h
}

func (h *held) renew(lost func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return
	}
	bounded, cancel := context.WithTimeout(h.ctx, h.lease/3)
	revision, won, err := h.claims.Claim(bounded, h.key, h.revision)
	cancel()
	switch {
	case err == nil && won:
		h.revision = revision
	case err == nil && revision != 0:
		if lost != nil {
			lost()
		}
		return
	}
	h.timer.Reset(h.lease / 3)
}

// keep lets the claim stand without renewing it: what it stood for is done.
func (h *held) keep() {
	if h == nil {
		return
	}
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
}

// release gives the claim back.
func (h *held) release() error {
	if h == nil {
		return nil
	}
	h.keep()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), releaseTimeout)
	defer cancel()
	return h.claims.Release(bounded, h.key, h.revision)
}
