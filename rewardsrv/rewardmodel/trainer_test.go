package rewardmodel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// simple makes turns that are helpful when the passage has the rare word of the question.
func simple(rng *rand.Rand) (e Example, label float64) {
	name := fmt.Sprintf("Name%d", rng.IntN(100_000))
	about := name
	if rng.IntN(2) == 0 {
		about = fmt.Sprintf("Name%d", 100_000+rng.IntN(100_000))
	}
	label = indicatorOf(about == name)
	return Example{
		Question:    "What is the capital of " + name + "?",
		Query:       "capital",
		Observation: "\n<information>" + about + ": it has a capital of the kind that is usual.</information>\n",
	}, label
}

func indicatorOf(is bool) float64 { return float64(indicator(is)) }

func newTestTrainer(t testing.TB, change func(*Config)) *Trainer {
	t.Helper()
	config := DefaultConfig()
	if change != nil {
		change(&config)
	}
	trainer, err := NewTrainer(config, 1)
	if err != nil {
		t.Fatal(err)
	}
	return trainer
}

// TestClassificationLearns: names that were never seen are told apart, the
// running accuracy says so, and rewards follow the threshold.
func TestClassificationLearns(t *testing.T) {
	trainer := newTestTrainer(t, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		for range 40 {
			trainer.Add(simple(rng))
		}
		trainer.Train(40)
	}
	if s := trainer.Stats(); s.Accuracy < 0.9 || s.Loss > 0.3 {
		t.Errorf("%+v", s)
	}
	model := trainer.Snapshot()
	right := 0
	for range 200 {
		e, label := simple(rng)
		score := model.Score(e)
		if score < 0 || score > 1 {
			t.Fatalf("score %v is no probability", score)
		}
		if model.Reward(e) != indicatorOf(score > 0.5) {
			t.Errorf("reward %v at probability %v", model.Reward(e), score)
		}
		right += int(1 - math.Abs(model.Reward(e)-label))
	}
	if right < 195 {
		t.Errorf("%d of 200 turns are right", right)
	}
}

func TestThresholdIsTheSparsity(t *testing.T) {
	trainer := newTestTrainer(t, func(c *Config) { c.Threshold = 1 })
	e, label := simple(rand.New(rand.NewPCG(1, 1)))
	trainer.Add(e, label)
	trainer.Train(1)
	if r := trainer.Snapshot().Reward(e); r != 0 {
		t.Errorf("reward %v although no probability is above 1", r)
	}
}

// TestRankingIsNormalised: scores have mean 0 and variance 1, they are what
// Reward is computed from, and what is better has the higher one.
func TestRankingIsNormalised(t *testing.T) {
	trainer := newTestTrainer(t, func(c *Config) { c.Kind = Ranking })
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		for range 40 {
			a, helpfulA := simple(rng)
			b, helpfulB := simple(rng)
			trainer.AddPair(a, b, (1+helpfulA-helpfulB)/2)
		}
		trainer.Train(40)
	}
	model := trainer.Snapshot()
	if model.moments.variance < 2 || math.Abs(model.moments.mean) < 0.1 {
		t.Errorf("moments %+v: raw scores are normal already and the test shows nothing", model.moments)
	}
	sum, squares, wrong := 0.0, 0.0, 0
	const n = 1000
	for range n {
		e, label := simple(rng)
		score := model.Score(e)
		sum += score
		squares += score * score
		if score > 0 != (label == 1) {
			wrong++
		}
		want := 0.0
		if score > -0.5 {
			want = score
		}
		if got := model.Reward(e); got != want {
			t.Errorf("reward %v at score %v", got, score)
		}
	}
	if mean, variance := sum/n, squares/n; math.Abs(mean) > 0.25 || variance < 0.7 || variance > 1.4 || wrong > n/50 {
		t.Errorf("scores have mean %v and variance %v, %d of %d on the wrong side", mean, variance, wrong, n)
	}
}

// TestTies: where nothing is preferred, scores stay together.
func TestTies(t *testing.T) {
	trainer := newTestTrainer(t, func(c *Config) { c.Kind = Ranking })
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		for range 40 {
			a, _ := simple(rng)
			b, _ := simple(rng)
			trainer.AddPair(a, b, 0.5)
		}
		trainer.Train(40)
	}
	if m := trainer.Snapshot().moments; m.variance > 0.01 {
		t.Errorf("scores have variance %v after ties alone", m.variance)
	}
	if trainer.Stats().Accuracy != 0 {
		t.Error("ties count for accuracy")
	}
}

// TestSchedule is ONI's: 32 steps at each arrival while labels are few, then one;
// none when nothing arrived.
func TestSchedule(t *testing.T) {
	trainer := newTestTrainer(t, func(c *Config) { c.ManyLabels, c.BatchSize = 20, 8 })
	rng := rand.New(rand.NewPCG(1, 1))
	add := func(n int) int {
		for range n {
			trainer.Add(simple(rng))
		}
		return trainer.Train(n)
	}
	if trainer.Ready() || trainer.Train(5) != 0 {
		t.Error("learned from no labels")
	}
	for i, want := range []int{0, 32, 32, 1, 1} {
		if got := add([]int{0, 1, 18, 1, 90}[i]); got != want {
			t.Errorf("arrival %d: %d steps, want %d", i, got, want)
		}
	}
	if s := trainer.Stats(); s.Steps != 66 || s.Labels != 110 || trainer.Snapshot().Version() != 66 || !trainer.Ready() {
		t.Errorf("%+v", s)
	}
}

func TestLabelsThatAreOfNoUse(t *testing.T) {
	e, _ := simple(rand.New(rand.NewPCG(1, 1)))
	classification, ranking := newTestTrainer(t, nil), newTestTrainer(t, func(c *Config) { c.Kind = Ranking })
	classification.Add(e, math.NaN())
	classification.AddPair(e, e, 1)
	ranking.AddPair(e, e, math.NaN())
	ranking.Add(e, 1)
	if classification.labels+ranking.labels != 0 {
		t.Error("a label that is no number, or of the other kind, was kept")
	}
	classification.Add(e, math.Inf(1))
	classification.Add(e, -3)
	if l := classification.examples.labels; len(l) != 2 || l[0] != 1 || l[1] != 0 {
		t.Errorf("labels %v, want 1 and 0", l)
	}
}

func TestEqualSeedsGiveEqualModels(t *testing.T) {
	run := func(seed uint64) []byte {
		trainer, err := NewTrainer(DefaultConfig(), seed)
		if err != nil {
			t.Fatal(err)
		}
		teach(trainer, rand.New(rand.NewPCG(1, 1)), 30)
		return trainer.Snapshot().Encode()
	}
	if !bytes.Equal(run(1), run(1)) {
		t.Error("one seed, two models")
	}
	if bytes.Equal(run(1), run(2)) {
		t.Error("two seeds, one model")
	}
}

// TestReservoir: each label is kept with the same probability, with its own turn.
func TestReservoir(t *testing.T) {
	const limit, labels, runs = 10, 40, 2000
	kept := make([]int, labels)
	rng := rand.New(rand.NewPCG(1, 1))
	for range runs {
		s := reservoir{limit: limit, width: 2}
		for i := range labels {
			r := make([]reading, 2)
			r[0].asked, r[1].asked = uint64(i), uint64(i)
			s.add(rng, float32(i), r)
		}
		if len(s.labels) != limit || len(s.readings) != 2*limit {
			t.Fatalf("%d labels, %d readings", len(s.labels), len(s.readings))
		}
		for i, label := range s.labels {
			kept[int(label)]++
			if s.readings[2*i].asked != uint64(label) || s.readings[2*i+1].asked != uint64(label) {
				t.Fatal("a label has another's turns")
			}
		}
	}
	for i, n := range kept {
		if want := runs * limit / labels; n < want*8/10 || n > want*12/10 {
			t.Errorf("label %d was kept %d times, want about %d", i, n, want)
		}
	}
}

// TestSnapshotsAreSafe: a model is used by many at once while its trainer goes
// on, and does not change. Run it with -race.
func TestSnapshotsAreSafe(t *testing.T) {
	trainer := taught(t, Classification)
	model := trainer.Snapshot()
	e := invented(rand.New(rand.NewPCG(4, 4)))
	want := model.Score(e)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 50 {
				if got := model.Score(e); got != want {
					t.Errorf("score %v, was %v", got, want)
				}
			}
		})
	}
	teach(trainer, rand.New(rand.NewPCG(2, 2)), 10)
	wait.Wait()
	if trainer.Snapshot().Score(e) == want {
		t.Error("the trainer learned nothing meanwhile")
	}
}

func TestScoringAllocatesNothing(t *testing.T) {
	model := taught(t, Ranking).Snapshot()
	e := invented(rand.New(rand.NewPCG(4, 4)))
	if n := testing.AllocsPerRun(100, func() { model.Score(e) }); n > 0.5 { // the pool may be emptied
		t.Errorf("%v allocations", n)
	}
}

func TestConfigIsValidated(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"kind":          func(c *Config) { c.Kind = "regression" },
		"threshold":     func(c *Config) { c.Threshold = math.NaN() },
		"epsilon":       func(c *Config) { c.Epsilon = math.Inf(-1) },
		"learning_rate": func(c *Config) { c.LearningRate = 0 },
		"dropout":       func(c *Config) { c.Dropout = 1 },
		"gradient_clip": func(c *Config) { c.GradientClip = 0 },
		"batch_size":    func(c *Config) { c.BatchSize = 0 },
		"steps":         func(c *Config) { c.Steps = 0 },
		"many_labels":   func(c *Config) { c.ManyLabels = 0 },
		"max_examples":  func(c *Config) { c.MaxExamples = maxStored + 1 },
		"min_labels":    func(c *Config) { c.MinLabels = 0 },
	} {
		config := DefaultConfig()
		change(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
