package rewardsrv

import (
	"context"
	"errors"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Judge labels steps of searches for one reward source.
type Judge interface {
	// Source is the reward source under which labels are published.
	Source() string
	// Current is what labels now. It may change while the server runs, as rubrics
	// are edited; what is queued keeps the one that it was queued with.
	Current() Grader
}

// Grader is a judge with one version of its rubric. Judge and Rubric identify
// who labels by what text; they are part of every label key, so that a changed
// rubric is judged anew. Methods are safe for concurrent use.
type Grader interface {
	Judge() string
	Rubric() string
	// Unit is what one label is about.
	Unit() rubric.Unit
	// History says that a label depends on the earlier queries of the rollout.
	History() bool
	// Label judges one item. An error that wraps ErrUnusable says that this item
	// got no usable answer; one that wraps judge.ErrUnavailable that nobody can be
	// asked now; any other that the judge gave no answer. It returns in bounded
	// time, and soon after ctx is done.
	Label(ctx context.Context, item rubric.Item) (Verdict, error)
}

// checker is a judge that can say whether it is reachable.
type checker interface {
	Check(ctx context.Context) error
}

// runner is a judge with work of its own, such as watching a rubric. Run returns
// soon after ctx is done.
type runner interface {
	Run(ctx context.Context)
}

// ErrUnusable means that the judge answered, but not with a label, or cannot
// judge this step.
var ErrUnusable = errors.New("judge gave no usable label")

// Verdict is a judge's label.
type Verdict struct {
	Value     float64 // finite; 1 helpful, 0 not, for the built-in judges
	Rationale string  // one line
	// Judgement says how the label came about; the server adds what was judged.
	Judgement forager.Judgement
}
