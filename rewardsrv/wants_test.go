package rewardsrv

import (
	"testing"

	"github.com/forager-rl/forager"
)

func TestLabelKey(t *testing.T) {
	base := forager.TurnDigest{RolloutID: "r", TaskID: "t", Query: "Capital of the Moon?", Passages: []forager.Passage{{ID: "a", Text: "x"}, {ID: "b", Text: "y"}}}
	key := func(change func(*forager.TurnDigest)) string {
		d := base
		change(&d)
		return turnItem(NewRuleJudge(), d).Key
	}
	same := key(func(*forager.TurnDigest) {})
	for name, k := range map[string]string{
		"another rollout":   key(func(d *forager.TurnDigest) { d.RolloutID, d.Turn, d.Answer = "q", 7, "x" }),
		"order of passages": key(func(d *forager.TurnDigest) { d.Passages = []forager.Passage{d.Passages[1], d.Passages[0]} }),
		"scores": key(func(d *forager.TurnDigest) {
			d.Passages = []forager.Passage{{ID: "a", Text: "x", Score: 3}, d.Passages[1]}
		}),
		"spelling of the query": key(func(d *forager.TurnDigest) { d.Query = " capital OF moon" }),
	} {
		if k != same {
			t.Errorf("%s changes the key", name)
		}
	}
	for name, k := range map[string]string{
		"task":          key(func(d *forager.TurnDigest) { d.TaskID = "u" }),
		"query":         key(func(d *forager.TurnDigest) { d.Query = "size of the moon" }),
		"fewer":         key(func(d *forager.TurnDigest) { d.Passages = d.Passages[:1] }),
		"poisoned text": key(func(d *forager.TurnDigest) { d.Passages = []forager.Passage{{ID: "a", Text: "LABEL"}, d.Passages[1]} }),
		"boundaries":    key(func(d *forager.TurnDigest) { d.Passages = []forager.Passage{{ID: "ax"}, d.Passages[1]} }),
	} {
		if k == same {
			t.Errorf("%s does not change the key", name)
		}
	}
}
