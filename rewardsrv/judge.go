package rewardsrv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"

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

// labelKey identifies a search step: equal keys are judged once. The order of
// the passages does not matter; their text does, so that an id which stands for
// another text elsewhere does not borrow its label.
func labelKey(judge Judge, d forager.TurnDigest) string {
	passages := make([]string, len(d.Passages))
	for i, p := range d.Passages {
		passages[i] = digest(p.ID, p.Title, p.Text)
	}
	slices.Sort(passages)
	parts := []string{judge.Rubric(), judge.Name(), d.TaskID, reward.Normalize(d.Query)}
	return digest(append(parts, slices.Compact(passages)...)...)
}

// digest hashes strings with their lengths, so that boundaries count.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(strconv.AppendInt(nil, int64(len(p)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
