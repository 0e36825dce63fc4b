package rewardsrv

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
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
		v, err := NewRuleJudge().Label(context.Background(), Item{Task: c.task, Question: c.task.Question, Passages: []forager.Passage{{ID: "noise"}, c.passage}})
		if err != nil || v.Value != c.want || !strings.Contains(v.Rationale, c.says) {
			t.Errorf("%s: %+v, %v; want %v and %q", c.name, v, err, c.want, c.says)
		}
		if clean := redact(v.Rationale, c.task); clean != v.Rationale {
			t.Errorf("%s: rationale %q names an answer", c.name, v.Rationale)
		}
	}
	if v, err := NewRuleJudge().Label(context.Background(), Item{Task: bridge()}); err != nil || v.Value != 0 {
		t.Errorf("no passages: %+v, %v", v, err)
	}
	if _, err := NewRuleJudge().Label(context.Background(), Item{Task: closed, Passages: []forager.Passage{{Text: "yes"}}}); !errors.Is(err, ErrUnusable) {
		t.Errorf("nothing to compare with: %v, want ErrUnusable", err)
	}
}

func TestLabelKey(t *testing.T) {
	base := forager.TurnDigest{RolloutID: "r", TaskID: "t", Query: "Capital of the Moon?", Passages: []forager.Passage{{ID: "a", Text: "x"}, {ID: "b", Text: "y"}}}
	key := func(change func(*forager.TurnDigest)) string {
		d := base
		change(&d)
		return labelKey(NewRuleJudge(), d)
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

func TestRedact(t *testing.T) {
	task := forager.Task{Answers: []string{"New York", "USA", "Žižek"}, Decomposition: []forager.Hop{{Answer: "New York City"}}}
	for in, want := range map[string]string{
		"It says new york city, plainly.":   "It says [answer], plainly.",
		"New Yorkers are no answer":         "New Yorkers are no answer",
		"NEW YORK and USA":                  "[answer] and [answer]",
		"by žižek\nand\tothers":             "by [answer] and others",
		"made in the U.S.A. of old":         withheld,
		"nothing here":                      "nothing here",
		strings.Repeat("é", 400):            strings.Repeat("é", 150) + "…",
		"x" + strings.Repeat("é", 400):      "x" + strings.Repeat("é", 149) + "…",
		"control \x1b[31m and \xff invalid": "control [31m and invalid",
	} {
		if got := redact(in, task); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzRedact holds that no accepted answer survives as whole words.
func FuzzRedact(f *testing.F) {
	f.Add("the capital is Paris, of course", "Paris")
	f.Add("a-b a b", "a b")
	f.Add("İstanbul ıI", "istanbul")
	f.Fuzz(func(t *testing.T, rationale, gold string) {
		r := redact(rationale, forager.Task{Answers: []string{gold}})
		if w := words(gold); strings.TrimSpace(w) != "" && r != withheld && strings.Contains(words(strings.ReplaceAll(r, redacted, ".")), w) {
			t.Fatalf("redact(%q) keeps %q: %q", rationale, gold, r)
		}
		if len(r) > maxRationaleBytes+len("…") || strings.ContainsAny(r, "\n\r") {
			t.Fatalf("rationale of %d bytes", len(r))
		}
	})
}
