package reward

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

func label(turn int, source string, value float64, second int64) forager.Annotation {
	return forager.Annotation{Turn: turn, Source: source, Value: &value, Time: time.Unix(second, 0)}
}

func recipe(t *testing.T, c Config) *Recipe {
	t.Helper()
	r, err := NewRecipe(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rollout(rewards map[string]float64, annotations ...forager.Annotation) *forager.Rollout {
	return &forager.Rollout{Rewards: rewards, Annotations: annotations}
}

func TestCombine(t *testing.T) {
	r := recipe(t, Config{
		ExtrinsicCoefficient: 2, Intrinsic: DefaultIntrinsicConfig(),
		Weights:    map[string]float64{"em": 1, "helpful": 0.5, "judge": 2, "off": 0},
		Transforms: map[string]Transform{"helpful": {Scale: 2, Bias: -1, Min: -0.5, Max: 1}},
	})
	null := forager.Annotation{Turn: 3, Source: "helpful"}
	bad := label(4, "helpful", math.NaN(), 9)
	c := r.Combine(rollout(map[string]float64{"em": 1, "off": 7},
		label(2, "helpful", 1, 5), label(2, "helpful", 0, 4), label(0, "helpful", 0, 1), null, bad), 0)
	// em 1; turn 0: 0.5·clip(-1) = -0.25; turn 2: the later label, 0.5·1; judge unknown; all of it twice.
	if want := 2 * (1 - 0.25 + 0.5); c.Total != want {
		t.Errorf("total %v, want %v", c.Total, want)
	}
	if want := []TurnReward{{0, -0.5}, {2, 1}}; !slices.Equal(c.Turns, want) {
		t.Errorf("turns %v, want %v", c.Turns, want)
	}
	if want := []string{"judge"}; !slices.Equal(c.Missing, want) {
		t.Errorf("missing %v, want %v", c.Missing, want)
	}
}

// weighted is a recipe of weights alone.
func weighted(weights map[string]float64) Config {
	c := DefaultConfig()
	c.Weights = weights
	return c
}

func TestNullDiffersFromZero(t *testing.T) {
	r := recipe(t, weighted(map[string]float64{"helpful": 1}))
	if c := r.Combine(rollout(nil, forager.Annotation{Source: "helpful"}), 0); len(c.Missing) != 1 {
		t.Error("a null label is not counted as missing")
	}
	if c := r.Combine(rollout(nil, label(0, "helpful", 0, 1)), 0); c.Total != 0 || len(c.Turns) != 1 || c.Missing != nil {
		t.Errorf("a zero label gives %+v", c)
	}
}

func TestWholeRolloutLabelReplacesRule(t *testing.T) {
	r := recipe(t, DefaultConfig())
	c := r.Combine(rollout(map[string]float64{"em": 0}, label(forager.WholeRollout, "em", 1, 1)), 0)
	if c.Total != 1 || c.Turns != nil {
		t.Errorf("%+v", c)
	}
}

func TestCombineIgnoresOrder(t *testing.T) {
	config := weighted(map[string]float64{"a": 0.1, "b": 0.7})
	config.Intrinsic.Source, config.Intrinsic.Coefficient = "c", 0.3
	r := recipe(t, config)
	rng := rand.New(rand.NewPCG(1, 2))
	var labels []forager.Annotation
	for i := range 40 {
		labels = append(labels, label(rng.IntN(6)-1, string(rune('a'+rng.IntN(3))), rng.Float64(), int64(i)))
	}
	episode := rollout(nil, labels...)
	episode.Turns = make([]forager.Turn, 5)
	first := r.Combine(episode, 0)
	for range 20 {
		rng.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
		if again := r.Combine(episode, 0); again.Total != first.Total || !slices.Equal(again.Turns, first.Turns) {
			t.Fatalf("order changes %+v to %+v", first, again)
		}
	}
}

func TestRecipeValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no weights":         func(c *Config) { c.Weights = nil },
		"all zero":           func(c *Config) { c.Weights = map[string]float64{"em": 0} },
		"not finite":         func(c *Config) { c.Weights["em"] = math.Inf(1) },
		"no name":            func(c *Config) { c.Weights[""] = 1 },
		"stray transform":    func(c *Config) { c.Transforms = map[string]Transform{"f1": {}} },
		"min above max":      func(c *Config) { c.Transforms = map[string]Transform{"em": {Min: 1}} },
		"transform with NaN": func(c *Config) { c.Transforms = map[string]Transform{"em": {Bias: math.NaN()}} },
		"format":             func(c *Config) { c.Format = FormatConfig{Final: 2} },
		"nothing is paid":    func(c *Config) { c.ExtrinsicCoefficient = 0 },
		"negative":           func(c *Config) { c.ExtrinsicCoefficient = -1 },
		"paid twice":         func(c *Config) { c.Intrinsic.Source, c.Intrinsic.Coefficient = "em", 0.1 },
	} {
		c := DefaultConfig()
		if change(&c); c.Validate() == nil {
			t.Errorf("%s passes", name)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
