package reward

import (
	"math"
	"slices"
	"testing"

	"github.com/forager-rl/forager"
)

// N counts what the episode has seen up to and with the turn, by passages.
func TestVisits(t *testing.T) {
	var turns []forager.Turn
	for _, key := range []string{"a", "b", "a", "", "a", "", "b"} {
		turns = append(turns, forager.Turn{Kind: forager.TurnSearch, ObservationKey: key})
	}
	if got, want := visits(turns), []int{1, 1, 2, 1, 3, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("visits %v, want %v", got, want)
	}
}

// r_t = c_ext · r_ext + c_int · r_int(o_t) / N(o_t)^β
func TestCombineIsONI(t *testing.T) {
	config := DefaultConfig()
	config.ExtrinsicCoefficient = 10
	config.Intrinsic.Source, config.Intrinsic.Coefficient = "helpful", 0.4
	r := recipe(t, config)
	episode := rollout(map[string]float64{"em": 1},
		label(0, "helpful", 1, 1), label(1, "helpful", 0, 1), label(2, "helpful", 1, 1), label(forager.WholeRollout, "helpful", 1, 1))
	episode.Turns = []forager.Turn{{ObservationKey: "a"}, {ObservationKey: "b"}, {ObservationKey: "a"}, {ObservationKey: "a"}, {Kind: forager.TurnAnswer}}
	c := r.Combine(episode, 0)
	if want := []TurnReward{{0, 0.4}, {1, 0}, {2, 0.4 / 8}}; !slices.Equal(c.Turns, want) {
		t.Errorf("turns %v, want %v", c.Turns, want)
	}
	if c.Intrinsic != 0.4+0.4/8 || c.Total != 10+c.Intrinsic || c.Missing != nil {
		t.Errorf("%+v", c)
	}

	// The turn without a label adds nothing, and a rollout without any is not one without help.
	episode.Annotations = nil
	if c := r.Combine(episode, 0); c.Total != 10 || c.Turns != nil || !slices.Equal(c.Missing, []string{"helpful"}) {
		t.Errorf("unlabelled: %+v", c)
	}

	// Reward-free: c_ext = 0. The transform comes before the coefficient.
	config.ExtrinsicCoefficient, config.Transforms = 0, map[string]Transform{"helpful": {Scale: 2, Bias: -1}}
	episode.Annotations = []forager.Annotation{label(0, "helpful", 1, 1), label(1, "helpful", 0, 1), label(2, "helpful", 0, 1)}
	if c := recipe(t, config).Combine(episode, 0); math.Abs(c.Total-(-0.4/8)) > 1e-15 {
		t.Errorf("reward-free: %+v", c)
	}
}

// c_int over the learner's steps.
func TestIntrinsicCoefficient(t *testing.T) {
	linear := IntrinsicConfig{Coefficient: 0.4, Decay: DecayLinear, DecaySteps: 10, FinalCoefficient: 0.1}
	cosine := linear
	cosine.Decay = DecayCosine
	for _, c := range []struct {
		config IntrinsicConfig
		step   uint64
		want   float64
	}{
		{IntrinsicConfig{Coefficient: 0.4, Decay: DecayConstant}, 1000, 0.4},
		{linear, 0, 0.4},
		{linear, 5, 0.25},
		{linear, 10, 0.1},
		{linear, 1000, 0.1},
		{cosine, 0, 0.4},
		{cosine, 5, 0.25},
		{cosine, 2, 0.1 + 0.3*(1+math.Cos(math.Pi/5))/2},
		{cosine, 11, 0.1},
	} {
		if got := c.config.coefficient(c.step); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%s at step %d: %v, want %v", c.config.Decay, c.step, got, c.want)
		}
	}
}

// A source that is not paid is neither counted nor missed.
func TestIntrinsicOff(t *testing.T) {
	config := DefaultConfig()
	config.Intrinsic.Source = "helpful"
	r := recipe(t, config)
	c := r.Combine(rollout(map[string]float64{"em": 1}, label(0, "helpful", 1, 1)), 0)
	if c.Total != 1 || c.Intrinsic != 0 || c.Turns != nil || c.Missing != nil || !slices.Equal(r.Sources(), []string{"em"}) {
		t.Errorf("%+v of %v", c, r.Sources())
	}
}

func TestIntrinsicValidate(t *testing.T) {
	for name, change := range map[string]func(*IntrinsicConfig){
		"no source":           func(c *IntrinsicConfig) { c.Source = "" },
		"negative":            func(c *IntrinsicConfig) { c.Coefficient = -1 },
		"not finite":          func(c *IntrinsicConfig) { c.CountExponent = math.NaN() },
		"unknown decay":       func(c *IntrinsicConfig) { c.Decay = "exponential" },
		"decay without end":   func(c *IntrinsicConfig) { c.Decay = DecayLinear },
		"end without a decay": func(c *IntrinsicConfig) { c.FinalCoefficient = 0.1 },
	} {
		c := DefaultIntrinsicConfig()
		c.Source, c.Coefficient = "helpful", 0.1
		if change(&c); c.Validate() == nil {
			t.Errorf("%s passes", name)
		}
	}
}
