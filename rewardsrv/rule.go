package rewardsrv

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// RuleJudge labels a step 1 when a passage holds something that the task's
// decomposition needs, else 0. It is exact where the task names gold passages,
// costs nothing, and is the default. Repeated queries are not its business: the
// same step has the same label every time.
//
// A passage helps when
//
//  1. it is the gold passage of a hop, or one of the task's gold passages, by
//     id or by title; or
//  2. it holds both ends of a hop: the hop's answer, and the previous hop's
//     answer or a title that the question names (so that a corpus with other
//     ids than the task's works too); or
//  3. it holds an accepted answer, for tasks with neither gold passages nor a
//     decomposition.
//
// Texts are compared normalised and by whole words; yes and no prove nothing
// and are skipped. Where a task leaves nothing to compare with, the step stays
// unlabelled.
type RuleJudge struct{}

// NewRuleJudge makes the rule judge.
func NewRuleJudge() RuleJudge { return RuleJudge{} }

// ruleRubric changes whenever the rules above do: old labels are then not reused.
const ruleRubric = "rule 1: gold passage by id or title, both ends of a hop, gold answer"

// Judge is "rule".
func (RuleJudge) Judge() string { return JudgeRule }

// Rubric is the digest of the rules' name.
func (RuleJudge) Rubric() string { return "sha256:" + forager.Digest(ruleRubric) }

// Unit is a single search.
func (RuleJudge) Unit() rubric.Unit { return rubric.Turn }

// History is false: earlier queries do not matter.
func (RuleJudge) History() bool { return false }

// Label judges one step. Its rationale names hops and results by number, never
// an answer.
func (RuleJudge) Label(_ context.Context, item rubric.Item) (Verdict, error) {
	t := item.Task
	gold, hopOf := goldPassages(t)
	for i, p := range item.Passages {
		if hop, ok := hopOf[p.ID]; ok {
			return helpful("result %d is the gold passage of hop %d of %d", i+1, hop, len(t.Decomposition)), nil
		}
		if gold[p.ID] || slices.ContainsFunc(t.GoldTitles, func(title string) bool { return sameTitle(title, p.Title) }) {
			return helpful("result %d is a gold passage", i+1), nil
		}
	}
	knowsGold := len(gold) > 0 || len(t.GoldTitles) > 0
	v, comparable := Verdict{}, false
	if len(t.Decomposition) > 0 {
		v, comparable = labelByHops(item)
	} else if !knowsGold {
		v, comparable = labelByAnswer(item)
	}
	switch {
	case comparable:
		return v, nil
	case knowsGold:
		return Verdict{Rationale: "no result is a gold passage"}, nil
	}
	return Verdict{}, fmt.Errorf("task %s has neither gold passages nor an answer to look for: %w", t.ID, ErrUnusable)
}

// goldPassages collects the ids of all gold passages, and the 1-based hop of
// those that belong to one.
func goldPassages(t forager.Task) (ids map[string]bool, hopOf map[string]int) {
	ids, hopOf = map[string]bool{}, map[string]int{}
	for _, id := range t.Gold {
		ids[id] = true
	}
	for i, hop := range t.Decomposition {
		if hop.Gold != "" {
			ids[hop.Gold] = true
			hopOf[hop.Gold] = i + 1
		}
	}
	return ids, hopOf
}

func sameTitle(a, b string) bool {
	n := reward.Normalize(a)
	return n != "" && n == reward.Normalize(b)
}

// labelByHops looks for both ends of a hop; comparable is false when no hop has
// an answer to look for.
func labelByHops(item rubric.Item) (v Verdict, comparable bool) {
	for h, hop := range item.Task.Decomposition {
		answer := words(hop.Answer)
		if !telling(answer) {
			continue
		}
		comparable = true
		previous := ""
		if h > 0 {
			previous = words(item.Task.Decomposition[h-1].Answer)
		}
		question := words(item.Question + " " + hop.Question)
		for i, p := range item.Passages {
			title := words(p.Title)
			text := words(p.Title + " . " + p.Text)
			linked := telling(previous) && strings.Contains(text, previous) || telling(title) && strings.Contains(question, title)
			if linked && strings.Contains(text, answer) {
				return helpful("result %d holds both ends of hop %d of %d", i+1, h+1, len(item.Task.Decomposition)), true
			}
		}
	}
	return Verdict{Rationale: "no result is gold or holds both ends of a hop"}, comparable
}

// labelByAnswer looks for an accepted answer; comparable is false when none is
// telling.
func labelByAnswer(item rubric.Item) (v Verdict, comparable bool) {
	for _, gold := range item.Task.Answers {
		answer := words(gold)
		if !telling(answer) {
			continue
		}
		comparable = true
		for i, p := range item.Passages {
			if strings.Contains(words(p.Title+" . "+p.Text), answer) {
				return helpful("result %d holds an accepted answer", i+1), true
			}
		}
	}
	return Verdict{Rationale: "no result holds an accepted answer"}, comparable
}

func helpful(format string, args ...any) Verdict {
	return Verdict{Value: 1, Rationale: fmt.Sprintf(format, args...)}
}

// words is normalised text between spaces, so that a substring is a run of
// whole words.
func words(s string) string { return " " + reward.Normalize(s) + " " }

// telling says whether finding these words in a passage means anything.
func telling(words string) bool {
	w := strings.TrimSpace(words)
	return w != "" && w != "yes" && w != "no" && w != "noanswer"
}
