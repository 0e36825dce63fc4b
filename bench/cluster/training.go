package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/replay"
)

// training is one run of the real learner over a model that only takes time.
type training struct {
	steps   uint64
	lag     int
	actors  int
	latency func(seed uint64, turn int) time.Duration
	delay   time.Duration // until published weights are in an actor
	seed    uint64
	bounded bool // drop what is older than lag, which must be above 0
}

// outcome is what a run came to.
type outcome struct {
	lags    histogram     // of rollouts at their use, by their oldest token
	credits histogram     // of groups at their use, by the version at which their credit was issued
	dropped int           // groups that were too old when a learner asked for them
	took    time.Duration // from the first credit to the last update
}

// searchesInTraining is the number of searches in an episode of a training run.
const searchesInTraining = 2

// train makes a run: bus and replay, actors with connections of their own, and
// the learner.
func (s *study) train(ctx context.Context, t training) (_ outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return outcome{}, err
	}
	folder, err := os.MkdirTemp(s.out, "plane-")
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	logger := newLogger()
	p, err := openPlane(ctx, folder, logger)
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for i := range t.actors {
		if err := t.addActor(ctx, p, fmt.Sprint("actor-", i), logger); err != nil {
			return outcome{}, err
		}
	}
	l, model, err := s.newLearner(p, t, logger)
	if err != nil {
		return outcome{}, err
	}
	begun := time.Now()
	if err := l.Run(ctx); err != nil {
		return outcome{}, err
	}
	if !l.Finished() {
		return outcome{}, context.Cause(ctx) // interrupted
	}
	return outcome{model.lags, model.credits, model.dropped, time.Since(begun)}, nil
}

// addActor starts an actor with a connection of its own, and what tells it of
// new versions.
func (t *training) addActor(ctx context.Context, p *plane, name string, logger *slog.Logger) error {
	b, err := joinBus(ctx, p.bus.URL(), logger)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, b.Close)
	generator := &paced{latency: t.latency, searches: searchesInTraining}
	a, err := troupe{name: name, generator: generator, retriever: p.index, groups: 1}.newActor(b, logger)
	if err != nil {
		return err
	}
	p.start(name, a.Run)
	p.start("weights of "+name, func(ctx context.Context) error { return follow(ctx, b, generator, t.delay) })
	return nil
}

// follow gives a generator the versions that are published.
func follow(ctx context.Context, b *bus.Bus, generator *paced, delay time.Duration) error {
	return b.Watch(ctx, topicWeights, func(notice []byte) {
		if version, err := strconv.ParseUint(string(notice), 10, 64); err == nil && sleep(ctx, delay) == nil {
			generator.played.Reach(forager.Version(version))
		}
	})
}

// newLearner puts the learner together; what it learns with is a fake, what it
// learns from is real.
func (s *study) newLearner(p *plane, t training, logger *slog.Logger) (*learner.Learner, *clockwork, error) {
	stream, err := learner.NewTasks(taskIDs(), t.seed)
	if err != nil {
		return nil, nil, err
	}
	cfg := learner.DefaultConfig()
	cfg.Steps, cfg.GroupsPerStep, cfg.GroupSize, cfg.Lag = t.steps, s.batch, s.size, t.lag
	cfg.MaxGroupsPerStep, cfg.MaxStaleness = 4*s.batch, 0
	if t.bounded {
		cfg.MaxStaleness = t.lag
	}
	model := &clockwork{update: s.update, issued: map[uint64]forager.Version{}}
	stand := standIns{p.bus}
	l, err := learner.New(cfg, learner.Deps{
		RunID: runID, Seed: t.seed, Epoch: 1, Model: model, Algorithm: anything{}, Tasks: stream,
		Reward:  func(*forager.Rollout, uint64) learner.Reward { return learner.Reward{Known: true} },
		Source:  source{replay.NewClient(caller{p.bus, serviceReplay}, 1, sampleWait), model},
		Lease:   stand,
		Credits: creditQueue{p.bus}, Publisher: stand, Checkpoints: stand, Reporter: stand, Logger: logger, Clock: time.Now,
	})
	return l, model, err
}

// clockwork is a learner.Model that takes a given time for an update and notes
// how old the rollouts are that it is given.
type clockwork struct {
	update  time.Duration
	version forager.Version // so many updates were made
	lags    histogram
	credits histogram
	issued  map[uint64]forager.Version // of the groups that were sampled, by credit
	dropped int                        // groups
}

// Logprobs implements learner.Scorer.
func (m *clockwork) Logprobs(seqs []learner.Sequence) ([][]float32, error) {
	list := make([][]float32, len(seqs))
	for i := range seqs {
		list[i] = make([]float32, len(seqs[i].Tokens))
	}
	return list, nil
}

// Accumulate implements learner.Model.
func (m *clockwork) Accumulate(seqs []learner.Sequence, loss func(i int, logp, grad []float32)) error {
	for i := range seqs {
		n := len(seqs[i].Tokens)
		loss(i, make([]float32, n), make([]float32, n))
		oldest := seqs[i].Rollout.OldestVersion()
		if oldest > m.version {
			return fmt.Errorf("rollout %s is of version %d, the learner is at %d", seqs[i].Rollout.ID, oldest, m.version)
		}
		m.lags.add(int(m.version - oldest))
		m.credits.add(int(m.version - m.issued[seqs[i].Group]))
	}
	return nil
}

// Update implements learner.Model.
func (m *clockwork) Update(float32) (float64, bool) {
	time.Sleep(m.update)
	m.version++
	return 1, true
}

// anything is a learner.Algorithm that learns from every group.
type anything struct{}

// NeedsReference implements learner.Algorithm.
func (anything) NeedsReference() bool { return false }

// Advantages implements learner.Algorithm.
func (anything) Advantages([]learner.Sequence, []float64) bool { return true }

// Loss implements learner.Algorithm.
func (anything) Loss(s *learner.Sequence, _ []float32, _ float64, _ []float32) learner.Terms {
	return learner.Terms{Tokens: s.PolicyTokens()}
}

// standIns publishes versions without weights and keeps no checkpoints.
type standIns struct{ bus *bus.Bus }

// Published implements learner.Publisher.
func (standIns) Published(context.Context) (forager.Version, bool, error) { return 0, false, nil }

// Publish implements learner.Publisher.
func (i standIns) Publish(ctx context.Context, version forager.Version, _ uint64) error {
	return i.bus.Notify(ctx, topicWeights, strconv.AppendUint(nil, uint64(version), 10))
}

// Save implements learner.Checkpointer.
func (standIns) Save(learner.State, func() error) error { return nil }

// Record implements learner.Checkpointer.
func (standIns) Record(context.Context) error { return nil }

// Hold implements learner.Lease: there is one learner.
func (standIns) Hold(context.Context) error { return nil }

// Step implements learner.Reporter.
func (standIns) Step(learner.StepMetrics) {}

// heavyTailed gives turns of log-normal length: the median as given, σ = 1, at
// most 20 medians. A rollout's turns are the same in every run.
func heavyTailed(seed uint64, median time.Duration) func(uint64, int) time.Duration {
	const longest = 20
	return func(rollout uint64, turn int) time.Duration {
		r := rand.New(rand.NewPCG(seed^rollout, uint64(turn)))
		return time.Duration(float64(median) * min(longest, math.Exp(r.NormFloat64())))
	}
}
