package rewardsrv

import (
	"context"
	"errors"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
)

// Judge labels search steps. Name and Rubric identify who judged by what text;
// they are part of the label key, so that a changed rubric is judged anew.
// Methods are safe for concurrent use.
type Judge interface {
	Name() string
	Rubric() string
	// Label judges one step. An error that wraps ErrUnusable says that this
	// step got no usable answer; any other error says that the judge could not
	// be asked at all. It returns in bounded time, and soon after ctx is done.
	Label(ctx context.Context, item Item) (Verdict, error)
}

// checker is a judge that can say whether it is reachable.
type checker interface {
	Check(ctx context.Context) error
}

// ErrUnusable means that the judge answered, but not with a label, or cannot
// judge this step.
var ErrUnusable = errors.New("judge gave no usable label")

// Item is one distinct search step as a judge sees it.
type Item struct {
	Key      string
	Task     forager.Task // with gold answers: a judge must keep them out of its rationale
	Question string
	Query    string
	Passages []forager.Passage
}

// Verdict is a judge's label.
type Verdict struct {
	Value     float64 // finite; 1 helpful, 0 not, for the built-in judges
	Rationale string  // one line
}

// labelKey identifies a search step: equal keys are judged once.
func labelKey(judge Judge, d forager.TurnDigest) string {
	return forager.Digest(judge.Rubric(), judge.Name(), d.TaskID, reward.Normalize(d.Query), forager.ObservationKey(d.Passages))
}
