package node

import (
	"context"
	"fmt"

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

// kit is what a learner needs whether or not it has the lease: one that stands by
// has it ready.
type kit struct {
	initial   *lm.Model
	language  language
	base      string // fingerprint of initial when adapters are trained
	recipe    *reward.Recipe
	algorithm learner.Algorithm
	reference learner.Scorer // nil when the algorithm needs none
	tasks     *dataset
	ids       []string      // of the tasks to train on
	shared    *sharedFolder // nil when actors play on engines of their own
	gauges    *stepGauges
	close     func()
}

func (p *process) newKit() (*kit, error) {
	initial, l, err := p.initialPolicy()
	if err != nil {
		return nil, err
	}
	k := &kit{initial: initial, language: l, gauges: &stepGauges{}, close: func() {}}
	if err := p.registry.Register(k.gauges); err != nil {
		return nil, fmt.Errorf("learner metrics: %w", err)
	}
	if k.recipe, err = reward.NewRecipe(p.cfg.Reward); err != nil {
		return nil, err
	}
	if k.tasks, err = p.dataset(); err != nil {
		return nil, err
	}
	for _, t := range k.tasks.split(forager.Train) {
		k.ids = append(k.ids, t.ID)
	}
	if p.cfg.Trainer.LoRA.Rank > 0 {
		k.base = fingerprint(initial)
	}
	if p.cfg.Policy.isRemote() {
		if k.shared, err = newSharedFolder(p.cfg.Policy.Remote.WeightsDir, p.run, p.cfg.Policy.Path, l); err != nil {
			return nil, err
		}
	}
	if k.shared == nil && k.base == "" {
		if err := p.roomForWeights(initial); err != nil {
			return nil, err
		}
	}
	k.algorithm = grpo.New(p.cfg.GRPO)
	if k.algorithm.NeedsReference() {
		scoring := p.cfg.Trainer
		scoring.LoRA.Rank = 0 // the reference is the starting policy itself
		frozen, err := lm.NewTrainer(initial, scoring)
		if err != nil {
			return nil, err
		}
		k.reference, k.close = trainable{frozen}, frozen.Close
	}
	return k, nil
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
func (p *process) newSession(ctx context.Context, k *kit, tenure *cluster.Tenure) (_ *session, err error) {
	s := &session{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	epoch, held := tenure.Epoch(), func() error { return tenure.Hold(ctx) }
	checkpoints, err := p.dir.Checkpoints(p.cfg.Run.KeepCheckpoints, epoch)
	if err != nil {
		return nil, err
	}
	trainer, state, err := p.resume(ctx, checkpoints, k.initial)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { trainer.Close(); return nil })
	stream, err := learner.NewTasks(k.ids, p.cfg.Run.Seed)
	if err != nil {
		return nil, forager.WithHint(err, "the task file has no row of the train split")
	}
	reporter, err := p.openReporter(k.gauges, state, held)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, reporter.close)
	s.learner, err = learner.New(p.cfg.Learner, learner.Deps{
		RunID: p.run, Seed: p.cfg.Run.Seed, Epoch: epoch,
		Model: trainable{trainer}, Reference: k.reference, Algorithm: k.algorithm, Tasks: stream,
		Reward: func(r *forager.Rollout, step uint64) learner.Reward {
			c := k.recipe.Combine(r, step)
			return learner.Reward{Value: c.Total, Intrinsic: c.Intrinsic, Known: len(c.Missing) < len(k.recipe.Sources())}
		},
		Source: &source{
			client: replay.NewClient(caller{p.bus, serviceReplay}, epoch, sampleWait),
			scorer: p.newScorer(s, k.tasks, k.language), used: map[uint64][]forager.Annotation{},
		},
		Lease:   tenure,
		Credits: creditWriter{p.bus},
		Publisher: &publisher{
			bus: p.bus, cluster: p.cluster, trainer: trainer, shared: k.shared, shape: k.initial.Arch.String(), base: k.base,
			run: p.run, epoch: epoch, clock: p.clock, logger: p.logger,
		},
		Checkpoints: &checkpointer{
			checkpoints: checkpoints, cluster: p.cluster, epoch: epoch, trainer: trainer, language: k.language,
		},
		Reporter: reporter, Resume: state, Logger: p.logger, Clock: p.clock, Tracer: p.tracer("learner"),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
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
		s.watch = func(ctx context.Context) error { return sc.labels.follow(ctx, p.bus, p.unreadable) }
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
