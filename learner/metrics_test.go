package learner

import (
	"testing"

	"github.com/forager-rl/forager"
)

// Labels of judges and scores of reward models are counted apart, by turn; an
// unlabelled turn is neither, and only searches count.
func TestCoverage(t *testing.T) {
	value := 0.0
	of := func(turn int, judge, rubric string, v *float64) forager.Annotation {
		return forager.Annotation{Turn: turn, Judge: judge, Rubric: rubric, Value: v}
	}
	r := forager.Rollout{
		Turns: []forager.Turn{{Kind: forager.TurnSearch}, {Kind: forager.TurnSearch}, {Kind: forager.TurnSearch}, {Kind: forager.TurnSearch}, {Kind: forager.TurnAnswer}},
		Annotations: []forager.Annotation{
			of(0, "rule", "r", &value), of(0, "llm:x", "s", &value), of(1, "rule", "r", nil), of(4, "rule", "r", &value),
			of(forager.WholeRollout, "rule", "r", &value),
			of(0, "model:classification", "7", &value), of(1, "model:classification", "9", &value), of(2, "model:classification", "8", &value),
		},
	}
	var tally rolloutTally
	tally.add(&r, 0)
	tally.rewarded, tally.reward, tally.intrinsic = 2, 3, 1
	var m StepMetrics
	tally.fill(&m)
	if m.LabelCoverage != 0.25 || m.ScoreCoverage != 0.75 || m.RewardModel != 9 || m.IntrinsicReward != 0.5 || m.Reward != 1.5 {
		t.Errorf("%+v", m)
	}
}
