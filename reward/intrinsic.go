package reward

import (
	"errors"
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// Intrinsic reward is paid for what a search brought, beside the reward of the
// task, as in "Online Intrinsic Rewards for Decision Making Agents from Large
// Language Model Feedback" (ONI; Zheng et al., 2024, arXiv 2410.23022):
//
//	r_t = c_ext · r_ext + c_int · r_int(o_t) / N(o_t)^β
//
// r_int(o_t) is the value of the source for turn t, N(o_t) how often the episode
// has shown the observation o_t so far, this time included. What differs from
// the paper, and why:
//
//  1. c_int may fall over the learner's steps, so that the last word is the
//     task's.
//  2. A turn that nobody has labelled adds nothing and is reported as missing;
//     it does not count as "not helpful".
//  3. An observation is a set of passages: their order does not make it new.

// IntrinsicConfig is the settings of the intrinsic reward.
type IntrinsicConfig struct {
	// Source is whose values are paid: classification or ranking, the scores of a
	// reward model; or the name of the judge's labels, such as helpful. Empty
	// means none. A source with coefficient 0 is shown in metrics and not paid.
	Source string `mapstructure:"source"`
	// Coefficient is c_int at the first step, 0 or more; 0 pays nothing.
	Coefficient float64 `mapstructure:"coefficient"`
	// CountExponent is β, 0 or more: the n-th time that an episode sees the same
	// passages pays 1/n^β. 0 pays them every time alike.
	CountExponent float64 `mapstructure:"count_exponent"`
	// Decay is how c_int goes to its final value: constant, linear or cosine.
	Decay string `mapstructure:"decay"`
	// DecaySteps is the number of learner steps of a linear or cosine decay.
	DecaySteps uint64 `mapstructure:"decay_steps"`
	// FinalCoefficient is c_int after the decay, 0 or more.
	FinalCoefficient float64 `mapstructure:"final_coefficient"`
	// Shuffle deals the values out at random among the turns that are sampled
	// together. It is the negative control: as much reward, and nothing in it.
	Shuffle bool `mapstructure:"shuffle"`
}

// The ways of c_int to its final value.
const (
	DecayConstant = "constant"
	DecayLinear   = "linear"
	DecayCosine   = "cosine"
)

// DefaultIntrinsicConfig pays nothing, and has ONI's β.
func DefaultIntrinsicConfig() IntrinsicConfig {
	return IntrinsicConfig{CountExponent: 3, Decay: DecayConstant}
}

// Validate reports what makes the settings unusable, or nil.
func (c IntrinsicConfig) Validate() error {
	for _, k := range []struct {
		name  string
		value float64
	}{{"coefficient", c.Coefficient}, {"count_exponent", c.CountExponent}, {"final_coefficient", c.FinalCoefficient}} {
		if !finite(k.value) || k.value < 0 {
			return fmt.Errorf("intrinsic.%s is %v, want 0 or more", k.name, k.value)
		}
	}
	if c.Source == "" && (c.Coefficient > 0 || c.FinalCoefficient > 0 || c.Shuffle) {
		return forager.WithHint(errors.New("intrinsic reward has no source"),
			"set reward.intrinsic.source to classification, ranking or the name of the judge's labels")
	}
	switch c.Decay {
	case DecayConstant:
		if c.DecaySteps > 0 || c.FinalCoefficient > 0 {
			return forager.WithHint(fmt.Errorf("intrinsic.decay_steps and final_coefficient do nothing with decay %s", c.Decay),
				"set reward.intrinsic.decay to linear or cosine")
		}
	case DecayLinear, DecayCosine:
		if c.DecaySteps == 0 {
			return fmt.Errorf("intrinsic.decay_steps is 0, want at least 1 with decay %s", c.Decay)
		}
	default:
		return fmt.Errorf("intrinsic.decay is %q, want %s, %s or %s", c.Decay, DecayConstant, DecayLinear, DecayCosine)
	}
	return nil
}

// counts says whether the source is ever paid.
func (c IntrinsicConfig) counts() bool {
	return c.Source != "" && (c.Coefficient > 0 || c.FinalCoefficient > 0)
}

// coefficient is c_int at a learner step, counted from 0.
func (c IntrinsicConfig) coefficient(step uint64) float64 {
	if c.Decay == DecayConstant {
		return c.Coefficient
	}
	done := min(1, float64(step)/float64(c.DecaySteps))
	remaining := 1 - done
	if c.Decay == DecayCosine {
		remaining = (1 + math.Cos(math.Pi*done)) / 2
	}
	return c.FinalCoefficient + (c.Coefficient-c.FinalCoefficient)*remaining
}

// pay is c_int · r_int / N^β.
func (c IntrinsicConfig) pay(step uint64, value float64, visits int) float64 {
	return c.coefficient(step) * value / math.Pow(float64(visits), c.CountExponent)
}

// visits gives N for every turn: how many turns of the episode, up to and with
// this one, brought the same passages. A turn without a key is like no other.
func visits(turns []forager.Turn) []int {
	seen := make(map[string]int, len(turns))
	n := make([]int, len(turns))
	for i, t := range turns {
		n[i] = 1
		if t.ObservationKey != "" {
			seen[t.ObservationKey]++
			n[i] = seen[t.ObservationKey]
		}
	}
	return n
}
