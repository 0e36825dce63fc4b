package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/learner/grpo"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/replay"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

// startingPolicy is the folder in a run directory that keeps the policy that
// the run started from: the reference of the divergence term and the first row
// of the report.
const startingPolicy = "policy"

// learn takes the lease and trains until the run is finished or ctx is done. It
// reports whether the run is finished. started, which may be nil, is called
// when the learner is about to step.
func (p *process) learn(ctx context.Context, started func(context.Context) error) (finished bool, err error) {
	running := context.WithoutCancel(ctx)
	over := p.condition.wait(forager.RoleLearner, waitCluster)
	err = p.awaitCluster(ctx)
	over()
	if err != nil {
		return false, err
	}
	p.condition.rise(forager.RoleLearner)
	lease, err := p.acquire(ctx)
	if err != nil {
		return false, err
	}
	s, err := p.newSession(lease.Epoch)
	if err != nil {
		return false, errors.Join(err, p.cluster.ReleaseLease(running, lease))
	}
	defer s.close()

	leased, lost := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer p.learning.begin(lease.Epoch)()
	watching.Go(func() { p.signals.run(leased) })
	if s.watch != nil {
		watching.Go(func() {
			if err := s.watch(leased); err != nil && leased.Err() == nil {
				p.logger.Error("learning goes on with the intrinsic rewards known so far", "error", err)
			}
		})
	}
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		if err := p.cluster.KeepLease(leased, lease); err != nil {
			lost(err)
		}
	}()
	defer func() {
		lost(nil)
		<-kept
		if released := p.release(running, lease); released != nil && !errors.Is(released, forager.ErrFenced) {
			p.logger.Warn("the lease was not given back and will run out", "error", released)
		}
	}()
	go func() { // a role that fails ends the learner too
		select {
		case failed := <-p.group.failed:
			lost(failed)
		case <-leased.Done():
		}
	}()
	if started != nil {
		if err := started(leased); err != nil {
			return false, err
		}
	}
	if err := s.learner.Run(leased); err != nil {
		return false, err
	}
	if cause := context.Cause(leased); leased.Err() != nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		return false, cause
	}
	return s.learner.Finished(), nil
}

func (p *process) release(ctx context.Context, lease cluster.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return p.cluster.ReleaseLease(ctx, lease)
}

// acquire waits for the learner's lease. Another learner that holds it makes
// this one stand by.
func (p *process) acquire(ctx context.Context) (cluster.Lease, error) {
	for told := false; ; {
		lease, _, err := p.cluster.AcquireLease(ctx, p.name, p.cfg.Cluster.LeaseTTL)
		if err == nil || !errors.Is(err, forager.ErrInUse) {
			return lease, err
		}
		if !told {
			p.observer.notice("another learner holds the lease: standing by")
			defer p.condition.wait(forager.RoleLearner, waitLease)()
			told = true
		}
		if !sleep(ctx, p.cfg.Cluster.LeaseTTL/5) {
			return cluster.Lease{}, ctx.Err()
		}
	}
}

// session is a learner at work, what keeps it informed, and what must be closed
// after it.
type session struct {
	learner *learner.Learner
	watch   func(context.Context) error // follows what turns are scored by; nil when they are not
	closers []func() error
}

func (s *session) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		_ = s.closers[i]() // logs of the run: their lines are flushed one by one
	}
}

// newSession builds the learner from the newest checkpoint, or from the starting
// policy.
func (p *process) newSession(epoch uint64) (_ *session, err error) {
	s := &session{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	checkpoints, err := p.dir.Checkpoints(p.cfg.Run.KeepCheckpoints)
	if err != nil {
		return nil, err
	}
	initial, l, err := p.initialPolicy()
	if err != nil {
		return nil, err
	}
	trainer, state, err := p.resume(checkpoints, initial)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { trainer.Close(); return nil })
	recipe, err := reward.NewRecipe(p.cfg.Reward)
	if err != nil {
		return nil, err
	}
	algorithm := grpo.New(p.cfg.GRPO)
	var reference learner.Scorer
	if algorithm.NeedsReference() {
		scoring := p.cfg.Trainer
		scoring.LoRA.Rank = 0 // the reference is the starting policy itself
		frozen, err := lm.NewTrainer(initial, scoring)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, func() error { frozen.Close(); return nil })
		reference = trainable{frozen}
	}
	tasks, err := p.dataset()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, t := range tasks.split(forager.Train) {
		ids = append(ids, t.ID)
	}
	stream, err := learner.NewTasks(ids, p.cfg.Run.Seed)
	if err != nil {
		return nil, forager.WithHint(err, "the task file has no row of the train split")
	}
	base := ""
	if trainer.Adapter() != nil {
		base = fingerprint(initial)
	}
	var shared *sharedFolder
	if p.cfg.Policy.isRemote() {
		if shared, err = newSharedFolder(p.cfg.Policy.Remote.WeightsDir, p.run, p.cfg.Policy.Path, l); err != nil {
			return nil, err
		}
	}
	if shared == nil && base == "" {
		if err := p.roomForWeights(initial); err != nil {
			return nil, err
		}
	}
	reporter, err := p.openReporter(state)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, reporter.close)
	s.learner, err = learner.New(p.cfg.Learner, learner.Deps{
		RunID: p.run, Seed: p.cfg.Run.Seed, Epoch: epoch,
		Model: trainable{trainer}, Reference: reference, Algorithm: algorithm, Tasks: stream,
		Reward: func(r *forager.Rollout, step uint64) learner.Reward {
			c := recipe.Combine(r, step)
			return learner.Reward{Value: c.Total, Intrinsic: c.Intrinsic, Known: len(c.Missing) < len(recipe.Sources())}
		},
		Source: &source{
			client: replay.NewClient(caller{p.bus, serviceReplay}, epoch, sampleWait),
			scorer: p.newScorer(s, tasks, l), used: map[uint64][]forager.Annotation{},
		},
		Credits: creditWriter{p.bus},
		Publisher: &publisher{
			bus: p.bus, cluster: p.cluster, trainer: trainer, shared: shared, shape: initial.Arch.String(), base: base,
			run: p.run, epoch: epoch, clock: p.clock, logger: p.logger,
		},
		Checkpoints: &checkpointer{
			checkpoints: checkpoints, cluster: p.cluster, epoch: epoch, trainer: trainer, language: l, logger: p.logger,
		},
		Reporter: reporter, Resume: state, Logger: p.logger, Clock: p.clock,
	})
	return s, err
}

// newScorer makes what values sampled turns, nil when the recipe has no
// intrinsic source, and gives the session what keeps it up to date.
func (p *process) newScorer(s *session, tasks *dataset, l language) *scorer {
	cfg := p.cfg.Reward.Intrinsic
	if cfg.Source == "" {
		return nil
	}
	sc := &scorer{source: cfg.Source, shuffle: cfg.Shuffle, seed: p.cfg.Run.Seed, tasks: tasks, decode: l.tokenizer.Decode, clock: p.clock}
	switch kind := rewardmodel.Kind(cfg.Source); kind {
	case rewardmodel.Classification, rewardmodel.Ranking:
		sc.models = &modelWatcher{kind: kind, latest: rewardModels{p.bus}.Latest, logger: p.logger}
		s.watch = func(ctx context.Context) error { return sc.models.run(ctx, p.bus) }
	default:
		sc.labels = newLabelTable(cfg.Source)
		s.watch = func(ctx context.Context) error { return sc.labels.follow(ctx, p.bus) }
	}
	return sc
}

// roomForWeights reports whether the object store holds what is there while a
// version of a whole model is published: it, and the two before.
func (p *process) roomForWeights(m *lm.Model) error {
	const versions, slack = 3, 1 << 20
	need := versions * (4*int64(len(m.Weights)) + slack)
	if need <= p.cfg.Bus.MaxObjects {
		return nil
	}
	return forager.WithHint(fmt.Errorf("the object store takes %d bytes, %d versions of %s have %d", p.cfg.Bus.MaxObjects, versions, m.Arch, need),
		fmt.Sprintf("set bus.max_objects to at least %d, or train adapters with trainer.lora.rank", need))
}
