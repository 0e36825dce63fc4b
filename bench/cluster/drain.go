package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/replay"
)

// drain stands in for a learner whose updates take no time: it takes every group
// out of replay, commits it, and hands out a credit in its place.
type drain struct {
	credits creditQueue
	client  *replay.Client
	size    int // rollouts of a group
	open    int // credits with actors and on their way
	issued  uint64

	rollouts atomic.Int64
	tokens   atomic.Int64
}

func newDrain(b *bus.Bus, size, open int) *drain {
	return &drain{
		credits: creditQueue{b}, client: replay.NewClient(caller{b, serviceReplay}, 1, sampleWait), size: size, open: open,
	}
}

// run works until ctx ends.
func (d *drain) run(ctx context.Context) error {
	err := retry(ctx, func() error {
		_, err := d.client.Begin(ctx, 0)
		return err
	})
	if err == nil {
		err = d.issue(ctx, d.open)
	}
	for err == nil {
		var groups []forager.Group
		if groups, _, err = d.client.Sample(ctx, replay.Query{MaxGroups: d.open, MaxBytes: sampleBytes}); err != nil {
			break
		}
		keys := make([]uint64, len(groups))
		for i, g := range groups {
			keys[i] = g.Credit.Index
			for j := range g.Rollouts {
				d.rollouts.Add(1)
				d.tokens.Add(int64(len(g.Rollouts[j].Tokens)))
			}
		}
		if err = d.client.Commit(ctx, keys, nil); err == nil {
			err = d.issue(ctx, len(keys))
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("take groups: %w", err)
}

// issuers is how many credits are published side by side: their acks must not be
// what is measured.
const issuers = 16

func (d *drain) issue(ctx context.Context, n int) error {
	slots := make(chan struct{}, issuers)
	errs := make([]error, n)
	var issuing sync.WaitGroup
	for i := range n {
		c := forager.Credit{
			Run: runID, Index: d.issued, TaskID: fmt.Sprint("t", d.issued%entities),
			Seed: rand.NewPCG(1, d.issued).Uint64(), GroupSize: d.size,
		}
		d.issued++
		slots <- struct{}{} // one is free again within the time-out of the bus
		issuing.Go(func() {
			defer func() { <-slots }()
			errs[i] = d.credits.Issue(ctx, c)
		})
	}
	issuing.Wait()
	return errors.Join(errs...)
}

// await waits until some rollouts have come.
func (d *drain) await(ctx context.Context, rollouts int64, limit time.Duration) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(limit)
	defer late.Stop()
	for d.rollouts.Load() < rollouts {
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("%d of %d rollouts came within %v", d.rollouts.Load(), rollouts, limit)
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
	return nil
}
