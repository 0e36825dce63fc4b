package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Searcher finds passages, best first.
type Searcher interface {
	Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error)
}

// MakeOptions says what turns to make.
type MakeOptions struct {
	Turns    int  // how many, at least 1
	Passages int  // of each search, at least 1
	Pairs    bool // compare two searches for one question, instead of judging each
}

// Make makes turns by searching: for each question once with its own words or
// with the title of one of its gold passages, and once with those of another
// question, which helps only by chance. The gold label is 1 when the search
// found a gold passage (by id or by title, since ids differ between dumps), else
// 0; of a pair it is 1 when only the first did, 0 when only the second did, and
// 0.5 otherwise. Questions that name no gold passages are left out. The
// questions are drawn with rng, so that equal seeds give equal turns.
func Make(ctx context.Context, tasks []forager.Task, searcher Searcher, o MakeOptions, rng *rand.Rand) ([]Turn, error) {
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(t forager.Task) bool { return len(t.GoldTitles) == 0 && len(t.Gold) == 0 })
	if len(tasks) < 2 {
		return nil, forager.WithHint(errors.New("make turns: fewer than two questions name gold passages"), "give labelled turns with --gold")
	}
	rng.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
	var turns []Turn
	for i := 0; len(turns) < o.Turns; i++ {
		if i == len(tasks) {
			return nil, fmt.Errorf("make turns: %d questions give only %d turns of the %d asked for", len(tasks), len(turns), o.Turns)
		}
		own, foreign := tasks[i], tasks[(i+1)%len(tasks)]
		steps, err := search(ctx, searcher, []string{words(own, rng), words(foreign, rng)}, o.Passages)
		if err != nil {
			return nil, err
		}
		rng.Shuffle(2, func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		item := rubric.Item{Task: own, Question: own.Question, Step: steps[0]}
		first, second := found(own, steps[0]), found(own, steps[1])
		if o.Pairs {
			item.Other = &steps[1]
			turns = append(turns, newTurn(item, (1+first-second)/2))
			continue
		}
		turns = append(turns, newTurn(item, first))
		if item.Step = steps[1]; len(turns) < o.Turns {
			turns = append(turns, newTurn(item, second))
		}
	}
	return turns, nil
}

// words is a query that a question suggests.
func words(t forager.Task, rng *rand.Rand) string {
	if n := len(t.GoldTitles); n > 0 && rng.IntN(2) == 0 {
		return t.GoldTitles[rng.IntN(n)]
	}
	return t.Question
}

func search(ctx context.Context, searcher Searcher, queries []string, k int) ([]rubric.Step, error) {
	answers, err := searcher.Search(ctx, queries, k)
	if err != nil {
		return nil, fmt.Errorf("make turns: %w", err)
	}
	if len(answers) != len(queries) {
		return nil, fmt.Errorf("make turns: %d answers to %d queries", len(answers), len(queries))
	}
	steps := make([]rubric.Step, len(queries))
	for i := range steps {
		steps[i] = rubric.Step{Query: queries[i], Passages: answers[i]}
	}
	return steps, nil
}

// found is 1 when a gold passage of the task is among those of a step, else 0.
func found(t forager.Task, s rubric.Step) float64 {
	for _, p := range s.Passages {
		if slices.Contains(t.Gold, p.ID) {
			return 1
		}
		title := reward.Normalize(p.Title)
		if title != "" && slices.ContainsFunc(t.GoldTitles, func(gold string) bool { return reward.Normalize(gold) == title }) {
			return 1
		}
	}
	return 0
}
