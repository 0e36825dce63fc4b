package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Models is where a reward model is published, for those who score turns by it.
type Models interface {
	// Publish replaces the run's reward model.
	Publish(ctx context.Context, version uint64, kind string, data []byte) error
	// Latest gives it, or an error that wraps forager.ErrNotFound.
	Latest(ctx context.Context) ([]byte, error)
}

const (
	distilKey     = "reward-model" // claimed by the one server that trains
	distilTimeout = 30 * time.Second

	saveInterval   = 2 * time.Minute // of the trainer's state, about 10 MB
	maxArrival     = 4096            // labels that count as one arrival
	arrivalBatches = 16              // messages that wait for the trainer
)

// distiller trains a reward model on the stream of labels and publishes it. It
// reads the stream on its own, from where the state that it kept ends, so that
// labelling never waits for it; of several servers one trains.
type distiller struct {
	config  RewardModelConfig
	source  string
	pairs   bool // the source's labels are preferences
	labels  Labels
	models  Models
	claims  Claims
	index   *labelstore.Store
	lease   time.Duration
	logger  *slog.Logger
	now     func() time.Time
	rng     *rand.Rand
	metrics distilMetrics
}

type distilMetrics struct {
	labels, steps, accuracy, loss, version prometheus.Gauge
	published                              *prometheus.CounterVec
}

// newDistiller gives nil when no reward model is to be trained.
func newDistiller(c Config, judges []Judge, deps Deps) (*distiller, error) {
	if !c.RewardModel.trained() {
		return nil, nil
	}
	if deps.Models == nil {
		return nil, errors.New("reward server: a reward model has no place to be published")
	}
	d := &distiller{
		config: c.RewardModel, labels: deps.Labels, models: deps.Models, claims: deps.Claims, index: deps.Index,
		lease: c.ClaimLease, logger: deps.Logger, now: deps.Now, rng: split(deps.Random),
	}
	if err := d.choose(judges); err != nil {
		return nil, err
	}
	return d, d.register(deps.Registerer)
}

// choose finds the labels to learn from: those of the named source; else, for a
// ranking model, preferences if a judge gives some; else labels of single turns.
func (d *distiller) choose(judges []Judge) error {
	for _, unit := range []rubric.Unit{rubric.Pair, rubric.Turn} {
		for _, j := range judges {
			fits := j.Current().Unit() == unit && (unit == rubric.Turn || d.config.Kind == rewardmodel.Ranking)
			if fits && (d.config.Source == "" || d.config.Source == j.Source()) {
				d.source, d.pairs = j.Source(), unit == rubric.Pair
				return nil
			}
		}
	}
	return forager.WithHint(fmt.Errorf("reward server: no judge gives labels of turns that a %s model can learn from", d.config.Kind),
		"add a rubric of unit turn, or of unit pair for a ranking model, or correct judge.reward_model.source")
}

func (d *distiller) register(reg prometheus.Registerer) error {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "forager_rewardsrv_model_" + name, Help: help})
	}
	d.metrics = distilMetrics{
		labels: gauge("labels", "Labels that the reward model has learned from."), steps: gauge("steps", "Gradient steps of the reward model."),
		accuracy: gauge("accuracy", "Running share of new labels that the reward model foretold."),
		loss:     gauge("loss", "Cross-entropy of the reward model's latest gradient step, in nats."),
		version:  gauge("version", "Version of the reward model published last by this server."),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "forager_rewardsrv_model_published_total", Help: "Attempts to publish the reward model.",
		}, []string{"outcome"}),
	}
	if reg == nil {
		return nil
	}
	m := d.metrics
	var errs []error
	for _, c := range []prometheus.Collector{m.labels, m.steps, m.accuracy, m.loss, m.version, m.published} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("register the reward model's metrics: %w", err)
	}
	return nil
}

// run trains whenever it is this server's turn to, until ctx is done.
func (d *distiller) run(ctx context.Context) {
	var retry backoff
	for ctx.Err() == nil {
		revision, ok := d.elect(ctx)
		if !ok {
			return
		}
		training, cancel := context.WithCancel(ctx)
		h := hold(ctx, d.claims, distilKey, revision, d.lease, cancel)
		err := d.train(training)
		cancel()
		if released := h.release(); released != nil {
			d.logger.Debug("the claim on training the reward model is left to expire", "error", released)
		}
		if err != nil && ctx.Err() == nil {
			if retry.first() {
				d.logger.Warn("the reward model cannot be trained, trying again", "error", err)
			}
			retry.wait(ctx)
		}
	}
}

// elect waits until this server is the one that trains.
func (d *distiller) elect(ctx context.Context) (revision uint64, ok bool) {
	if d.claims == nil {
		return 0, ctx.Err() == nil
	}
	var seen, over uint64
	var since time.Time
	for {
		revision, won, err := d.claims.Claim(ctx, distilKey, over)
		if err == nil && won {
			return revision, true
		}
		over = 0
		if err == nil && revision != seen {
			seen, since = revision, d.now()
		} else if err == nil && d.now().Sub(since) >= d.lease {
			over = seen
		}
		if !sleep(ctx, d.lease/8) {
			return 0, false
		}
	}
}

// lessons is what one message of the stream teaches.
type lessons struct {
	sequence uint64
	labels   []forager.Annotation // those with a judgement, of the source
}

// train learns from the stream until ctx is done, and keeps the trainer's state.
func (d *distiller) train(ctx context.Context) error {
	s, err := d.start(ctx)
	if err != nil {
		return err
	}
	following, cancel := context.WithCancel(ctx)
	arrived := make(chan lessons, arrivalBatches)
	var follower sync.WaitGroup
	var broken error
	follower.Go(func() {
		defer close(arrived)
		broken = d.labels.Follow(following, s.sequence+1, func(sequence uint64, list []forager.Annotation) error {
			select {
			case arrived <- d.lessons(sequence, list):
			case <-following.Done():
			}
			return nil
		})
	})
	err = s.learn(ctx, arrived)
	cancel()
	for range arrived { // lets the follower end; what it holds is read again
	}
	follower.Wait()
	s.save()
	return errors.Join(err, broken)
}

func (d *distiller) lessons(sequence uint64, list []forager.Annotation) lessons {
	l := lessons{sequence: sequence}
	for _, a := range list {
		if a.Source == d.source && a.Value != nil && a.Judgement.TaskID != "" {
			l.labels = append(l.labels, a)
		}
	}
	return l
}

// start restores the trainer, or makes one that reads the stream from its begin.
func (d *distiller) start(ctx context.Context) (*study, error) {
	s := &study{distiller: d, matches: newMatches(d.rng)}
	sequence, state, err := d.index.Trainer()
	if err != nil {
		return nil, err
	}
	if state != nil {
		if s.trainer, err = rewardmodel.Restore(d.config.Config, state); err != nil {
			d.logger.Warn("the reward model's trainer is not restored, it learns anew from the stream", "error", err)
		} else {
			s.sequence = sequence
		}
	}
	if s.trainer == nil {
		if s.trainer, err = rewardmodel.NewTrainer(d.config.Config, d.rng.Uint64()); err != nil {
			return nil, err
		}
	}
	// What another server or an earlier process published stays until this
	// trainer has made as many steps.
	bounded, cancel := context.WithTimeout(ctx, distilTimeout)
	defer cancel()
	data, err := d.models.Latest(bounded)
	if err == nil {
		var m *rewardmodel.Model
		if m, err = rewardmodel.Decode(data); err == nil && m.Kind() == d.config.Kind {
			s.published = m.Version()
		}
	}
	if err != nil && !errors.Is(err, forager.ErrNotFound) {
		d.logger.Warn("the reward model that was published last cannot be read; it will be replaced", "error", err)
	}
	s.saved, s.shown = d.now(), d.now()
	d.logger.Info("training the reward model", "kind", d.config.Kind, "source", d.source, "labels", s.trainer.Stats().Labels, "from", s.sequence+1)
	return s, nil
}
