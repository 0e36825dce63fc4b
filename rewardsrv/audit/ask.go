package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Judge labels one item. An error that wraps ErrUnusable says that the answer
// was of no use; any other one that the judge could not be asked.
type Judge func(ctx context.Context, item rubric.Item) (Label, error)

// Label is a judge's answer. Judgement may be known without a value too.
type Label struct {
	Value     float64
	Rationale string
	Judgement forager.Judgement
}

// ErrUnusable means that a judge answered, but not with a label.
var ErrUnusable = errors.New("no usable label")

// tries is how often an item is asked for a usable answer, as the reward server
// does.
const tries = 2

// Outcome is what became of a turn.
type Outcome struct {
	Turn      Turn
	Value     *float64 // nil: the judge gave no usable label
	Rationale string
	Judgement forager.Judgement
	Unusable  int   // answers of no use before that
	Err       error // of the last of them
}

// Result is the outcomes of an audit and what they cost.
type Result struct {
	Outcomes []Outcome
	Took     time.Duration
}

// Ask puts turns to a judge, several at one time. The first failure to ask ends
// it, as the end of ctx does: then the result holds the turns that were done.
// progress hears how many are, one call after another.
func Ask(ctx context.Context, turns []Turn, judge Judge, atOnce int, now func() time.Time, progress func(done int)) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := now()
	result := Result{Outcomes: make([]Outcome, len(turns))}
	var mu sync.Mutex
	var wait sync.WaitGroup
	next, done := 0, 0
	for range min(max(1, atOnce), len(turns)) {
		wait.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(turns) || ctx.Err() != nil {
					return
				}
				o, err := ask(ctx, turns[i], judge)
				mu.Lock()
				if err != nil {
					cancel(fmt.Errorf("turn %d of %d: %w", i+1, len(turns), err))
				} else {
					result.Outcomes[i] = o
					done++
					progress(done)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	result.Took = now().Sub(start)
	result.Outcomes = slices.DeleteFunc(result.Outcomes, func(o Outcome) bool { return o.Value == nil && o.Err == nil })
	return result, context.Cause(ctx)
}

func ask(ctx context.Context, turn Turn, judge Judge) (Outcome, error) {
	o := Outcome{Turn: turn}
	for range tries {
		label, err := judge(ctx, turn.Item)
		j := label.Judgement
		j.PromptTokens += o.Judgement.PromptTokens
		j.CompletionTokens += o.Judgement.CompletionTokens
		o.Judgement = j
		switch {
		case err == nil:
			o.Value, o.Rationale = &label.Value, label.Rationale
			return o, nil
		case !errors.Is(err, ErrUnusable):
			return o, err
		}
		o.Unusable++
		o.Err = err
	}
	return o, nil
}
