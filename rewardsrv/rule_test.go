package rewardsrv

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

func bridge() forager.Task {
	return forager.Task{
		ID: "bridge", Question: "What is the capital of the country where Chimay is brewed?",
		Answers: []string{"Brussels"}, Gold: []string{"p1", "p2"},
		Decomposition: []forager.Hop{
			{Question: "Where is Chimay brewed?", Answer: "Belgium", Gold: "p1"},
			{Question: "What is the capital of Belgium?", Answer: "Brussels", Gold: "p2"},
		},
	}
}

func TestRuleJudge(t *testing.T) {
	withoutGold := bridge()
	withoutGold.Gold = nil
	for i := range withoutGold.Decomposition {
		withoutGold.Decomposition[i].Gold = ""
	}
	plain := forager.Task{ID: "plain", Question: "Who?", Answers: []string{"Ada Lovelace"}}
	titled := forager.Task{ID: "titled", Answers: []string{"no"}, GoldTitles: []string{"Ed Wood"}}
	closed := forager.Task{ID: "closed", Answers: []string{"yes"}}

	for _, c := range []struct {
		name    string
		task    forager.Task
		passage forager.Passage
		want    float64
		says    string
	}{
		{"gold of the second hop", bridge(), forager.Passage{ID: "p2"}, 1, "hop 2 of 2"},
		{"answer in a passing mention", bridge(), forager.Passage{ID: "p8", Title: "Waffles", Text: "Sold in Brussels."}, 0, "no result"},
		{"both ends, other ids", bridge(), forager.Passage{ID: "x", Title: "Brussels", Text: "It is the capital of Belgium."}, 1, "both ends of hop 2"},
		{"title named by the question", withoutGold, forager.Passage{ID: "x", Title: "Chimay", Text: "A beer from Belgium."}, 1, "both ends of hop 1"},
		{"one end only", withoutGold, forager.Passage{ID: "x", Title: "Leuven", Text: "A town in Belgium."}, 0, "no result"},
		{"part of a word is no answer", withoutGold, forager.Passage{ID: "x", Title: "Chimay", Text: "Belgiums"}, 0, "no result"},
		{"gold title", titled, forager.Passage{ID: "x", Title: "ed wood"}, 1, "gold passage"},
		{"answer", plain, forager.Passage{ID: "x", Text: "the engine of ADA LOVELACE."}, 1, "accepted answer"},
		{"no answer", plain, forager.Passage{ID: "x", Text: "Ada"}, 0, "no result"},
	} {
		v, err := NewRuleJudge().Label(context.Background(), rubric.Item{Task: c.task, Question: c.task.Question, Step: rubric.Step{Passages: []forager.Passage{{ID: "noise"}, c.passage}}})
		if err != nil || v.Value != c.want || !strings.Contains(v.Rationale, c.says) {
			t.Errorf("%s: %+v, %v; want %v and %q", c.name, v, err, c.want, c.says)
		}
		if clean := rubric.Redact(v.Rationale, c.task); clean != v.Rationale {
			t.Errorf("%s: rationale %q names an answer", c.name, v.Rationale)
		}
	}
	if v, err := NewRuleJudge().Label(context.Background(), rubric.Item{Task: bridge()}); err != nil || v.Value != 0 {
		t.Errorf("no passages: %+v, %v", v, err)
	}
	if _, err := NewRuleJudge().Label(context.Background(), rubric.Item{Task: closed, Step: rubric.Step{Passages: []forager.Passage{{Text: "yes"}}}}); !errors.Is(err, ErrUnusable) {
		t.Errorf("nothing to compare with: %v, want ErrUnusable", err)
	}
}
