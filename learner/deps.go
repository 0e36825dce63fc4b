package learner

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
)

// Source is replay as the learner sees it. Every call is bounded in time.
type Source interface {
	// Begin says that a learner starts: groups that were sampled but never
	// committed are offered again, in their first order. It tells what became of
	// the groups of credit from and later.
	Begin(ctx context.Context, from uint64) (Inventory, error)
	// Sample waits a moment for groups and may come back with none. A group is
	// offered once per Begin.
	Sample(ctx context.Context, request Request) (Sample, error)
	// Commit makes replay forget groups for good. Repeating it changes nothing.
	Commit(ctx context.Context, groups []uint64) error
}

// Inventory is what replay knows about groups.
type Inventory struct {
	Held []uint64 // in the table, will be offered
	Gone []uint64 // were in the table and never will be again
}

// Request says what the learner wants.
type Request struct {
	MaxGroups    int
	Version      forager.Version // of the learner
	MaxStaleness int             // 0: no limit
}

// Sample is what came.
type Sample struct {
	Groups  []forager.Group
	Dropped []Drop
}

// Drop is a group that replay gave up; its credit returns to the learner.
type Drop struct {
	Group  uint64
	Reason string // such as "stale" or "evicted"
}

// Lease is the learner's right to act, which another may have taken while this
// one was paused or cut off.
type Lease interface {
	// Hold is asked right before everything that others see. It returns nil when
	// nobody else can have the lease at this moment, forager.ErrFenced when
	// another learner has taken over, and other errors when that cannot be found
	// out now.
	Hold(ctx context.Context) error
}

// Credits hands credits to actors. Issuing one twice is harmless.
type Credits interface {
	// Withdraw takes back the credits of earlier learners, before this one issues
	// any. held is asked once it is settled which ones these are, and right
	// before they go; its error is returned.
	Withdraw(ctx context.Context, held func() error) error
	// Issue returns forager.ErrFull when actors have enough to do.
	Issue(ctx context.Context, credit forager.Credit) error
}

// Publisher makes the model's current weights the policy of all actors.
type Publisher interface {
	// Published is the newest version of the run, false when there is none.
	Published(ctx context.Context) (forager.Version, bool, error)
	// Publish stores the weights, then agrees on their manifest. It returns
	// forager.ErrFenced when another learner has taken over and forager.ErrStale
	// when that version is published already.
	Publish(ctx context.Context, version forager.Version, step uint64) error
}

// Checkpointer makes weights, optimiser and state durable, atomically.
type Checkpointer interface {
	// Save replaces an earlier checkpoint of the same step. When it fails the
	// earlier ones are whole. held is asked right before each change that others
	// see; its error is returned.
	Save(state State, held func() error) error
	// Record has everybody agree that the checkpoint saved last is the newest. It
	// returns forager.ErrFenced when another learner has taken over.
	Record(ctx context.Context) error
}

// Reporter is told about every finished step.
type Reporter interface {
	Step(metrics StepMetrics)
}

// Reward is what the recipe says of a rollout.
type Reward struct {
	Value     float64
	Intrinsic float64 // the part of Value that is paid for what searches brought
	Known     bool    // false: nothing is known of the rollout, which differs from 0
}

// Deps is everything a Learner needs from outside. All fields are required but
// Reference, Resume and Tracer.
type Deps struct {
	RunID       string
	Seed        uint64
	Epoch       uint64 // of the learner lease: the fencing token
	Model       Model
	Reference   Scorer // required when the algorithm needs it
	Algorithm   Algorithm
	Reward      func(r *forager.Rollout, step uint64) Reward // step counts from 0
	Tasks       TaskStream
	Source      Source
	Lease       Lease // of Epoch
	Credits     Credits
	Publisher   Publisher
	Checkpoints Checkpointer
	Reporter    Reporter
	Resume      *State // state of the checkpoint that Model was loaded from; nil starts a run
	Logger      *slog.Logger
	Clock       func() time.Time
	Tracer      trace.Tracer // nil traces nothing
}

func (d *Deps) validate() error {
	switch {
	case d.RunID == "":
		return errors.New("learner: no run id")
	case d.Model == nil || d.Algorithm == nil || d.Reward == nil || d.Tasks == nil:
		return errors.New("learner: model, algorithm, reward and tasks are required")
	case d.Source == nil || d.Lease == nil || d.Credits == nil || d.Publisher == nil || d.Checkpoints == nil || d.Reporter == nil:
		return errors.New("learner: source, lease, credits, publisher, checkpoints and reporter are required")
	case d.Logger == nil || d.Clock == nil:
		return errors.New("learner: logger and clock are required")
	case d.Algorithm.NeedsReference() && d.Reference == nil:
		return errors.New("learner: the algorithm needs a reference policy and there is none")
	}
	return nil
}
