package warmstart

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/search"
)

// shelf finds a passage by its title.
type shelf map[string]forager.Passage

func (s shelf) Search(_ context.Context, queries []string, _ int) ([][]forager.Passage, error) {
	if p, ok := s[queries[0]]; ok {
		return [][]forager.Passage{{p}}, nil
	}
	return [][]forager.Passage{nil}, nil
}

func practice(t *testing.T, tasks ...forager.Task) Practice {
	t.Helper()
	_, tok, _ := testDemonstrator(t)
	found := shelf{
		"Norland": {ID: "1", Title: "Norland (country)", Text: "The capital of Norland is Peel."},
		"Peel":    {ID: "2", Title: "Peel", Text: "Peel lies at the river Oos."},
		"Oos":     {ID: "3", Title: "Something else", Text: "Not what was asked for."},
	}
	return Practice{Tasks: tasks, Retriever: found, Tokenizer: tok, NewPlayer: func(g policy.Generator, r search.Retriever) (*actor.Player, error) {
		return actor.NewPlayer(actor.DefaultEpisodeConfig(), actor.PlayerDeps{
			Run: "r", Actor: "a", Generator: g, Tokenizer: tok, Retriever: r, Clock: func() time.Time { return time.Time{} },
		})
	}}
}

func question(answer string, titles ...string) forager.Task {
	return forager.Task{ID: fmt.Sprint(titles), Question: "At which river lies the capital of Norland?", Answers: []string{answer}, GoldTitles: titles}
}

func TestImitatedEpisodes(t *testing.T) {
	for name, test := range map[string]struct {
		task forager.Task
		want string // the actions, or none
	}{
		"follows the names": {question("Oos", "Peel", "Norland (country)"),
			"<search> Norland </search><search> Peel </search><answer> Oos </answer>"},
		"judges":                    {question("yes", "Norland (country)"), "<search> Norland </search><answer> yes </answer>"},
		"title that nobody named":   {question("Oos", "Norland (country)", "Sudland"), ""},
		"title that finds another":  {question("Oos", "Norland (country)", "Peel", "Oos"), ""},
		"answer that was not shown": {question("Rhine", "Norland (country)"), ""},
		"no titles":                 {question("Oos"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := practice(t, test.task)
			played, err := p.demonstrations(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, s := range played {
				for j, m := range s.Mask {
					if m {
						got.WriteString(p.Tokenizer.Decode(s.Tokens[j : j+1]))
					}
				}
			}
			if got.String() != test.want {
				t.Errorf("played %q, want %q", got.String(), test.want)
			}
		})
	}
}

func TestImitateLearns(t *testing.T) {
	p := practice(t, question("Oos", "Peel", "Norland (country)"), question("yes", "Norland (country)"), question("Oos"))
	m, err := lm.New(lm.Tiny(p.Tokenizer.VocabSize()), rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := lm.NewTrainer(m, lm.DefaultTrainerConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer trainer.Close()
	cfg := DefaultImitationConfig()
	cfg.Epochs, cfg.LearningRate = 12, 3e-3
	var losses []float64
	done, err := Imitate(t.Context(), cfg, 1, trainer, p, func(u Progress) { losses = append(losses, u.Loss) })
	if err != nil {
		t.Fatal(err)
	}
	if done.Demonstrations != 2 || done.Passed != 1 || done.Tokens == 0 {
		t.Errorf("got %+v, want two demonstrations and one question passed over", done)
	}
	if len(losses) != 12 || losses[11] > losses[0]/2 {
		t.Errorf("losses are %.3f", losses)
	}
	cfg.Limit = 1
	if done, err := Imitate(t.Context(), cfg, 1, trainer, p, nil); err != nil || done.Demonstrations != 1 || done.Passed != 1 {
		t.Errorf("limited to one demonstration: %+v, %v", done, err)
	}
	if _, err := Imitate(t.Context(), cfg, 1, trainer, practice(t, question("Oos")), nil); err == nil {
		t.Error("nothing to learn from is no error")
	}
}
