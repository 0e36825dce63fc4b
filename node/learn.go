package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
)

// standByPoll is how often a learner that stands by looks at the lease.
const standByPoll = 500 * time.Millisecond

// learn stands by until this process has the lease, and trains until the run is
// finished or ctx is done. A learner that loses its lease stands by again. It
// reports whether the run is finished. started, which may be nil, is called once,
// when the learner is about to step.
func (p *process) learn(ctx context.Context, started func(context.Context) error) (finished bool, err error) {
	over := p.condition.wait(forager.RoleLearner, waitCluster)
	err = p.awaitCluster(ctx)
	over()
	if err != nil {
		return false, err
	}
	p.condition.rise(forager.RoleLearner)
	kit, err := p.newKit()
	if err != nil {
		return false, err
	}
	defer kit.close()
	begin := func(ctx context.Context) error {
		if started == nil {
			return nil
		}
		call := started
		started = nil
		return call(ctx)
	}
	for known := false; ; known = true {
		tenure, err := p.standBy(ctx, known)
		if err != nil {
			return false, err
		}
		finished, err := p.lead(ctx, kit, tenure, begin)
		if ctx.Err() != nil || !errors.Is(err, forager.ErrFenced) {
			return finished, err
		}
		p.observer.notice("the lease of epoch %d is lost, this learner stands by: %v", tenure.Epoch(), err)
		if !sleep(ctx, standByPoll) {
			return false, ctx.Err()
		}
	}
}

// lead trains under a lease. It returns forager.ErrFenced when another learner
// has taken over.
func (p *process) lead(ctx context.Context, kit *kit, tenure *cluster.Tenure, begin func(context.Context) error) (finished bool, err error) {
	leased, lost := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer p.learning.begin(tenure.Epoch())()
	watching.Go(func() { p.signals.run(leased) })
	var s *session
	defer func() {
		lost(nil)
		watching.Wait()
		if released := p.release(ctx, tenure); released != nil && !errors.Is(released, forager.ErrFenced) {
			p.logger.Warn("the lease was not given back and will run out", "error", released)
		}
		if s != nil {
			s.close()
		}
	}()
	watching.Go(func() { // from now on: loading may take longer than the lease
		if err := tenure.Keep(leased); err != nil {
			lost(err)
		}
	})
	watching.Go(func() { // a role that fails ends the learner too
		select {
		case failed := <-p.group.failed:
			lost(failed)
		case <-leased.Done():
		}
	})
	if s, err = p.newSession(leased, kit, tenure); err == nil {
		if s.watch != nil {
			watching.Go(func() {
				if err := s.watch(leased); err != nil && leased.Err() == nil {
					p.logger.Error("learning goes on with the intrinsic rewards known so far", "error", err)
				}
			})
		}
		if err = begin(leased); err == nil {
			err = s.learner.Run(leased)
		}
	}
	switch {
	case leased.Err() != nil && ctx.Err() == nil:
		return false, context.Cause(leased)
	case err != nil:
		return false, err
	}
	return s.learner.Finished(), nil
}

// release gives the lease back, also after ctx is done.
func (p *process) release(ctx context.Context, tenure *cluster.Tenure) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return tenure.Release(ctx)
}

// standBy waits for the learner's lease, for as long as another learner holds it.
// told says whether people know already that this one stands by.
func (p *process) standBy(ctx context.Context, told bool) (*cluster.Tenure, error) {
	var watched leaseWatch
	defer p.condition.wait(forager.RoleLearner, waitLease)()
	for first := true; ; first = false {
		state, err := p.cluster.State(ctx)
		if err == nil && (watched.free(state.Lease, p.clock()) || first) {
			var tenure *cluster.Tenure
			if tenure, err = p.takeLease(ctx); err == nil {
				if told {
					p.observer.notice("took over the lease with epoch %d", tenure.Epoch())
				}
				return tenure, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && !errors.Is(err, forager.ErrInUse):
			p.logger.Warn("the lease cannot be asked for, trying again", "error", err)
		case !told:
			p.observer.notice("another learner holds the lease: standing by")
			told = true
		}
		pause, cancel := context.WithTimeout(ctx, standByPoll)
		select {
		case <-pause.Done():
			cancel()
		case failed := <-p.group.failed:
			cancel()
			return nil, failed
		}
	}
}

// leaseWatch tells by this process's own clock when a lease that is not renewed
// has run out: asking for it again and again would fill the Raft log.
type leaseWatch struct {
	seen  cluster.Lease
	since time.Time // when it was first seen so
}

// free reports whether the lease may be had.
func (w *leaseWatch) free(lease cluster.Lease, now time.Time) bool {
	if !lease.Expires.Equal(w.seen.Expires) || lease.Epoch != w.seen.Epoch {
		w.seen, w.since = lease, now
	}
	return lease.Holder == "" || now.Sub(w.since) >= lease.TTL
}

// takeLease takes the lease under an epoch above all that have left checkpoints.
// They are below it anyway, unless the group has lost its state and counts from
// 1 again.
func (p *process) takeLease(ctx context.Context) (*cluster.Tenure, error) {
	newest, err := p.dir.ReadCheckpoints().Epoch()
	if err != nil {
		return nil, err
	}
	for {
		tenure, err := p.cluster.TakeLease(ctx, p.name, p.cfg.Cluster.LeaseTTL, p.clock)
		if err != nil || tenure.Epoch() > newest {
			return tenure, err
		}
	}
}
