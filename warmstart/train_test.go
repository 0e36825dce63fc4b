package warmstart

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/search/worldfacts"
)

// little is a warm start of a few updates.
func little() Config {
	cfg := DefaultConfig()
	cfg.TokenizerWorlds = 20
	cfg.BatchTokens = 1024
	cfg.Stages = []Stage{{MaxHops: 1, Tokens: 4000}, {MaxHops: 3, StopEarly: 0.5, Tokens: 4000}}
	return cfg
}

func testDemonstrator(t testing.TB) (*demonstrator, *tokenizer.Tokenizer, *worldfacts.World) {
	t.Helper()
	real, err := worldfacts.Real()
	if err != nil {
		t.Fatal(err)
	}
	names := worldfacts.NewNames(real)
	cfg := little()
	tok, err := tokenizer.Train(texts(cfg, names), tokenizer.TrainOptions{VocabSize: cfg.VocabSize, Added: tags, EOS: endOfSequence})
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDemonstrator(cfg.Episode, tok, newNamer(names, tok))
	if err != nil {
		t.Fatal(err)
	}
	return d, tok, real
}

// TestDemonstrations plays some and wants complete episodes of the protocol in
// which only actions are learned from and no real entity of dev or test occurs.
func TestDemonstrations(t *testing.T) {
	d, tok, real := testDemonstrator(t)
	hidden := map[string]bool{}
	for _, c := range real.Countries {
		if worldfacts.SplitOf(c.Region) != forager.Train {
			hidden[c.Name], hidden[c.Capital] = true, true
		}
	}
	early := 0
	const plays = 200
	for i := range uint64(plays) {
		s, err := d.play(t.Context(), rand.New(rand.NewPCG(1, i)), Stage{MaxHops: 3, StopEarly: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		text := tok.Decode(s.Tokens)
		if !strings.HasPrefix(text, "Question: ") || !strings.HasSuffix(text, "</answer>") {
			t.Fatalf("demonstration %d is %q", i, text)
		}
		var spoken []int32
		for j, m := range s.Mask {
			if m {
				spoken = append(spoken, s.Tokens[j])
			}
		}
		said := tok.Decode(spoken)
		if strings.Contains(said, "<information>") || strings.Contains(said, "Question:") || strings.Count(said, "<answer>") != 1 {
			t.Fatalf("demonstration %d learns from %q", i, said)
		}
		for name := range hidden {
			if strings.Contains(text, " "+name+" ") {
				t.Errorf("demonstration %d names %s: %q", i, name, text)
			}
		}
		again, err := d.play(t.Context(), rand.New(rand.NewPCG(1, i)), Stage{MaxHops: 3, StopEarly: 0.5})
		if err != nil || !slices.Equal(again.Tokens, s.Tokens) {
			t.Fatalf("demonstration %d is not reproducible (%v)", i, err)
		}
		if strings.Count(said, "<search>") == 1 {
			early++
		}
	}
	// A third has one hop; of the rest about half stops after the first.
	if early < plays*2/5 || early > plays*4/5 {
		t.Errorf("%d of %d demonstrations search once", early, plays)
	}
}

// TestAstray: a demonstration that goes astray reads on from what it has read, or
// the same again, as long as it may, and answers with what it found before.
func TestAstray(t *testing.T) {
	d, _, _ := testDemonstrator(t)
	for i := range uint64(60) {
		random := rand.New(rand.NewPCG(2, i))
		task, world := d.invent(random, 3)
		leads := world.Leads()
		never, answer := d.plan(random, task, world, Stage{})
		if len(never) != 3 || answer != task.Answers[0] {
			t.Fatalf("without going astray %q is answered with %q after %v", task.Question, answer, never)
		}
		always, answer := d.plan(random, task, world, Stage{Astray: 1})
		if len(always) != d.searches || always[0].Passage != task.Decomposition[0].Gold {
			t.Fatalf("%q asks %v", task.Question, always)
		}
		for j, s := range always[1:] {
			if s.Passage == task.Decomposition[1].Gold || s != always[j] && !slices.Contains(leads[always[j].Passage], s) {
				t.Errorf("%q asks %v after %v", task.Question, s, always[j])
			}
		}
		if answer != task.Decomposition[0].Answer {
			t.Errorf("%q is answered with %q after %v", task.Question, answer, always)
		}
		if _, err := d.play(t.Context(), random, Stage{MaxHops: 3, StopEarly: 0.2, Astray: 0.8}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRunIsReproducible(t *testing.T) {
	var first *lm.Model
	for _, threads := range []int{1, 2} {
		cfg := little()
		cfg.Trainer.Threads = threads
		steps := 0
		result, err := Run(t.Context(), cfg, func(p Progress) { steps = p.Step })
		if err != nil {
			t.Fatal(err)
		}
		if steps < 4 || result.Model.Arch.VocabSize != result.Tokenizer.VocabSize() {
			t.Errorf("%d updates, vocabularies of %d and %d", steps, result.Model.Arch.VocabSize, result.Tokenizer.VocabSize())
		}
		if first == nil {
			first = result.Model
		} else if !slices.Equal(first.Weights, result.Model.Weights) {
			t.Error("another number of threads gives other weights")
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"vocabulary": func(c *Config) { c.VocabSize = 10 },
		"no stages":  func(c *Config) { c.Stages = nil },
		"hops":       func(c *Config) { c.Stages[0].MaxHops = 4 },
		"share":      func(c *Config) { c.Stages[0].StopEarly = 2 },
		"astray":     func(c *Config) { c.Stages[0].Astray = -1 },
		"rate":       func(c *Config) { c.LearningRate = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if cfg.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkDemonstrations(b *testing.B) {
	d, _, _ := testDemonstrator(b)
	var i uint64
	for b.Loop() {
		i++
		if _, err := d.play(b.Context(), rand.New(rand.NewPCG(1, i)), Stage{MaxHops: 3}); err != nil {
			b.Fatal(err)
		}
	}
}
