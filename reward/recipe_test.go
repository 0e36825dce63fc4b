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

func TestCombine(t *testing.T) {
	r := recipe(t, Config{
		Weights:    map[string]float64{"em": 1, "helpful": 0.5, "judge": 2, "off": 0},
		Transforms: map[string]Transform{"helpful": {Scale: 2, Bias: -1, Min: -0.5, Max: 1}},
	})
	null := forager.Annotation{Turn: 3, Source: "helpful"}
	bad := label(4, "helpful", math.NaN(), 9)
	total, turns, missing := r.Combine(map[string]float64{"em": 1, "off": 7},
		[]forager.Annotation{label(2, "helpful", 1, 5), label(2, "helpful", 0, 4), label(0, "helpful", 0, 1), null, bad})
	// em 1; turn 0: 0.5·clip(-1) = -0.25; turn 2: the later label, 0.5·1; judge unknown.
	if want := 1 - 0.25 + 0.5; total != want {
		t.Errorf("total %v, want %v", total, want)
	}
	if want := []TurnReward{{0, -0.25}, {2, 0.5}}; !slices.Equal(turns, want) {
		t.Errorf("turns %v, want %v", turns, want)
	}
	if want := []string{"judge"}; !slices.Equal(missing, want) {
		t.Errorf("missing %v, want %v", missing, want)
	}
}

func TestNullDiffersFromZero(t *testing.T) {
	r := recipe(t, Config{Weights: map[string]float64{"helpful": 1}})
	if _, _, missing := r.Combine(nil, []forager.Annotation{{Source: "helpful"}}); len(missing) != 1 {
		t.Error("a null label is not counted as missing")
	}
	if total, turns, missing := r.Combine(nil, []forager.Annotation{label(0, "helpful", 0, 1)}); total != 0 || len(turns) != 1 || missing != nil {
		t.Errorf("a zero label gives %v, %v, missing %v", total, turns, missing)
	}
}

func TestWholeRolloutLabelReplacesRule(t *testing.T) {
	r := recipe(t, DefaultConfig())
	total, turns, _ := r.Combine(map[string]float64{"em": 0}, []forager.Annotation{label(forager.WholeRollout, "em", 1, 1)})
	if total != 1 || turns != nil {
		t.Errorf("total %v, turns %v", total, turns)
	}
}

func TestCombineIgnoresOrder(t *testing.T) {
	r := recipe(t, Config{Weights: map[string]float64{"a": 0.1, "b": 0.7, "c": -0.3}})
	rng := rand.New(rand.NewPCG(1, 2))
	var labels []forager.Annotation
	for i := range 40 {
		labels = append(labels, label(rng.IntN(6)-1, string(rune('a'+rng.IntN(3))), rng.Float64(), int64(i)))
	}
	total, turns, _ := r.Combine(nil, labels)
	for range 20 {
		rng.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
		if again, turns2, _ := r.Combine(nil, labels); again != total || !slices.Equal(turns, turns2) {
			t.Fatalf("order changes %v to %v", total, again)
		}
	}
}

func TestRecipeValidate(t *testing.T) {
	for name, c := range map[string]Config{
		"no weights":         {},
		"all zero":           {Weights: map[string]float64{"em": 0}},
		"not finite":         {Weights: map[string]float64{"em": math.Inf(1)}},
		"no name":            {Weights: map[string]float64{"": 1}},
		"stray transform":    {Weights: map[string]float64{"em": 1}, Transforms: map[string]Transform{"f1": {}}},
		"min above max":      {Weights: map[string]float64{"em": 1}, Transforms: map[string]Transform{"em": {Min: 1}}},
		"transform with NaN": {Weights: map[string]float64{"em": 1}, Transforms: map[string]Transform{"em": {Bias: math.NaN()}}},
		"format":             {Weights: map[string]float64{"em": 1}, Format: FormatConfig{Final: 2}},
	} {
		if _, err := NewRecipe(c); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
