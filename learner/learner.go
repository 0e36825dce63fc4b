package learner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// maxNonFinite is how many steps in a row may have no finite gradient before the
// run is given up: the weights or the data are beyond repair.
const maxNonFinite = 10

// Learner runs the step loop. Make it with New, then call Run once.
type Learner struct {
	Deps
	config Config
	state  State

	saved        State           // of the last durable checkpoint
	unsent       []uint64        // credits that are open but not with the actors yet
	held         map[uint64]bool // groups beyond Budget.Issued that replay has already
	gone         map[uint64]bool // groups beyond Budget.Issued that replay never offers again
	nonFiniteRun int             // steps in a row without a finite gradient
}

// New checks configuration and dependencies; it does nothing else.
func New(config Config, deps Deps) (*Learner, error) {
	if err := errors.Join(config.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	deps.Tracer = spans.TracerOrNone(deps.Tracer)
	l := &Learner{Deps: deps, config: config, state: State{Run: deps.RunID}}
	if deps.Resume != nil {
		if err := deps.Resume.Validate(deps.RunID); err != nil {
			return nil, err
		}
		l.state = deps.Resume.clone()
		l.saved = l.state.clone()
	}
	return l, nil
}

// State is a copy of the state after the last step. Call it before or after
// Run, not during.
func (l *Learner) State() State { return l.state.clone() }

// Finished reports whether the run has reached its steps or its time limit.
// Call it after Run.
func (l *Learner) Finished() bool {
	return l.state.Step >= l.config.Steps || l.config.TimeLimit > 0 && l.state.Elapsed >= l.config.TimeLimit
}

// Run trains until the steps are done, the time limit is reached, or ctx is
// cancelled; all three give nil, and leave a checkpoint of the last step. It
// returns forager.ErrFenced, wrapped, when another learner has taken over; from
// that moment on it does nothing that others see.
func (l *Learner) Run(ctx context.Context) error {
	begun, before := l.Clock(), l.state.Elapsed
	defer func() { l.state.Elapsed = before + l.Clock().Sub(begun) }()

	gathering := ctx
	if l.config.TimeLimit > 0 {
		limited, cancel := context.WithTimeout(ctx, l.config.TimeLimit-before)
		defer cancel()
		gathering = limited
	}
	err := l.start(ctx)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	for err == nil && l.state.Step < l.config.Steps && gathering.Err() == nil {
		err = l.step(ctx, gathering, func() time.Duration { return before + l.Clock().Sub(begun) })
	}
	if err != nil {
		return fmt.Errorf("learner step %d: %w", l.state.Step+1, err)
	}
	last, cancel := l.finishing(ctx)
	defer cancel()
	switch {
	case l.state.Step > l.saved.Step:
		l.state.Elapsed = before + l.Clock().Sub(begun)
		if err := l.checkpoint(last); err != nil {
			return err
		}
		return l.commit(last)
	case gathering.Err() != nil && ctx.Err() == nil && l.saved.Elapsed < l.config.TimeLimit:
		// Time was up within a step. The checkpoint must say so, or whoever loads
		// it would go on; what was gathered in vain is no part of it.
		l.state = l.saved.clone()
		l.state.Elapsed = max(l.config.TimeLimit, before+l.Clock().Sub(begun))
		return l.checkpoint(last)
	}
	return nil
}

// start settles with replay and cluster what a crash may have left open.
func (l *Learner) start(ctx context.Context) error {
	if err := l.commit(ctx); err != nil { // a crash between checkpoint and commit
		return err
	}
	var inventory Inventory
	err := l.retry(ctx, "begin with replay", func() (err error) {
		inventory, err = l.Source.Begin(ctx, l.state.Budget.Oldest())
		return err
	})
	if err != nil {
		return err
	}
	// What earlier learners issued is issued anew below, or by nobody.
	err = l.retry(ctx, "withdraw old credits", func() error {
		return l.Credits.Withdraw(ctx, func() error { return l.hold(ctx) })
	})
	if err != nil {
		return err
	}
	l.held, l.gone = set(inventory.Held), set(inventory.Gone)
	for _, index := range slices.Clone(l.state.Budget.Open) {
		switch {
		case l.gone[index]:
			l.state.Budget.Return(index)
		case !l.held[index]:
			l.unsent = append(l.unsent, index)
		}
		delete(l.held, index)
		delete(l.gone, index)
	}
	if len(l.unsent) > 0 {
		l.Logger.Info("issue open credits again", "credits", len(l.unsent))
	}
	return l.announce(ctx)
}

// announce makes sure that the actors run the weights that the learner has.
func (l *Learner) announce(ctx context.Context) error {
	var published forager.Version
	var any bool
	err := l.retry(ctx, "ask for the published version", func() (err error) {
		published, any, err = l.Publisher.Published(ctx)
		return err
	})
	switch {
	case err != nil:
		return err
	case any && published == l.state.Version && l.Resume != nil:
		return nil
	case any && published >= l.state.Version:
		// The checkpoint is older than the last publication. Versions never go
		// back, so its weights get a number of their own.
		l.state.Version = published + 1
	}
	if l.Resume == nil || l.state.Version != l.Resume.Version {
		if err := l.checkpoint(ctx); err != nil {
			return err
		}
	}
	return l.publish(ctx)
}

// step does one step. gathering ends earlier than ctx when time is up; once the
// update has begun the step is finished whatever happens to either.
func (l *Learner) step(ctx, gathering context.Context, elapsed func() time.Duration) (err error) {
	ctx, span := l.Tracer.Start(ctx, SpanStep, trace.WithNewRoot(), l.position(l.state.Step+1, l.state.Version))
	defer func() { spans.End(span, err) }()
	gathering = trace.ContextWithSpan(gathering, span)
	begun := l.Clock()
	metrics := StepMetrics{LearningRate: l.config.learningRate(l.state.Step)}

	h, err := l.gather(gathering)
	if err != nil && gathering.Err() != nil {
		return nil // stopped: what was gathered is offered again
	}
	if err != nil {
		return err
	}
	l.state.RolledOut += uint64(h.tally.tokens)
	h.fill(&metrics)
	gathered := l.Clock()

	updated, err := l.update(ctx, h, &metrics)
	if err != nil {
		return err
	}
	for _, g := range h.groups {
		if updated {
			l.state.Budget.Learn(g.index)
		} else {
			l.state.Budget.Return(g.index)
		}
		l.state.consume(g.index)
	}
	l.state.Step++
	switch {
	case updated:
		l.state.Version++
		l.nonFiniteRun = 0
	case len(h.groups) > 0:
		l.nonFiniteRun++
	}
	if l.nonFiniteRun >= maxNonFinite {
		return forager.WithHint(fmt.Errorf("no finite gradient in %d steps", maxNonFinite), "resume from an earlier checkpoint with a lower learner.learning_rate")
	}
	trained := l.Clock()

	metrics.Step, metrics.Version = l.state.Step, l.state.Version
	metrics.NonFinite = l.state.NonFinite
	metrics.TotalTrained, metrics.TotalRolledOut = l.state.Trained, l.state.RolledOut
	metrics.CreditsOpen = len(l.state.Budget.Open)
	metrics.WaitSeconds = gathered.Sub(begun).Seconds()
	metrics.TrainSeconds = trained.Sub(gathered).Seconds()
	l.state.Elapsed = elapsed()
	l.state.Metrics = metrics.ending(trained.Sub(begun), l.state.Elapsed)

	last, cancel := l.finishing(ctx)
	defer cancel()
	durable := l.state.Step%l.config.CheckpointEvery == 0 || l.state.Step == l.config.Steps
	if durable {
		if err := l.checkpoint(last); err != nil {
			return err
		}
	}
	saved := l.Clock()
	if updated {
		if err := l.publish(last); err != nil {
			return err
		}
	}
	if durable {
		if err := l.commit(last); err != nil {
			return err
		}
	}
	done := l.Clock()
	metrics.CheckpointSeconds = saved.Sub(trained).Seconds()
	metrics.PublishSeconds = done.Sub(saved).Seconds()
	metrics = metrics.ending(done.Sub(begun), elapsed())
	if err := l.hold(last); err != nil {
		return err
	}
	l.Reporter.Step(metrics)
	return nil
}

// checkpoint makes the state durable and known. Only then may it be published or
// committed: a successor resumes from what is known.
func (l *Learner) checkpoint(ctx context.Context) (err error) {
	ctx, span := l.Tracer.Start(ctx, "learner.checkpoint", l.position(l.state.Step, l.state.Version))
	defer func() { spans.End(span, err) }()
	saved := l.state.clone()
	err = l.Checkpoints.Save(saved, func() error { return l.hold(ctx) })
	if err == nil {
		err = l.act(ctx, "record", func() error { return l.Checkpoints.Record(ctx) })
	}
	if err != nil {
		return fmt.Errorf("checkpoint of step %d: %w", l.state.Step, err)
	}
	l.saved = saved
	return nil
}

// publish is repeated until it succeeds. An attempt whose answer was lost makes
// the next one stale, which is as good as done.
func (l *Learner) publish(ctx context.Context) (err error) {
	ctx, span := l.Tracer.Start(ctx, "weights.publish", trace.WithSpanKind(trace.SpanKindProducer), l.position(l.state.Step, l.state.Version))
	defer func() { spans.End(span, err) }()
	err = l.act(ctx, "publish", func() error {
		err := l.Publisher.Publish(ctx, l.state.Version, l.state.Step)
		if !errors.Is(err, forager.ErrStale) {
			return err
		}
		published, _, again := l.Publisher.Published(ctx)
		if again != nil || published == l.state.Version {
			return again
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("publish policy v%d: %w", l.state.Version, err)
	}
	return nil
}

// commit lets replay forget the groups that the durable checkpoint has consumed.
func (l *Learner) commit(ctx context.Context) error {
	if len(l.state.Consumed) == 0 {
		return nil
	}
	err := l.act(ctx, "commit to replay", func() error { return l.Source.Commit(ctx, l.state.Consumed) })
	if err == nil {
		l.state.Consumed, l.saved.Consumed = nil, nil
	}
	return err
}

func set(indexes []uint64) map[uint64]bool {
	s := make(map[uint64]bool, len(indexes))
	for _, i := range indexes {
		s[i] = true
	}
	return s
}
