package grpo

import (
	"errors"
	"fmt"
	"math"

	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/learner/rlmath"
)

// stdFloor keeps the advantage finite when rewards hardly differ.
const stdFloor = 1e-6

// Config holds the coefficients of the objective.
type Config struct {
	// ClipLow is ε below 1: ratios under 1−ClipLow get no gradient when the
	// advantage is negative. Range (0, 1].
	ClipLow float64 `mapstructure:"clip_low"`
	// ClipHigh is ε above 1: ratios over 1+ClipHigh get no gradient when the
	// advantage is positive. Range (0, 10].
	ClipHigh float64 `mapstructure:"clip_high"`
	// KLCoefficient is β, the weight of the divergence from the reference policy
	// (the warm start). 0 saves the reference's forward pass. Range [0, 1].
	KLCoefficient float64 `mapstructure:"kl_coefficient"`
	// NormalizeStd divides advantages by the group's standard deviation, as the
	// paper does. Off, they are only centred.
	NormalizeStd bool `mapstructure:"normalize_std"`
	// DropZeroVariance replaces groups whose rewards are all equal by others,
	// since they carry no gradient apart from the divergence term.
	DropZeroVariance bool `mapstructure:"drop_zero_variance"`
}

// DefaultConfig gives the values that verl and Search-R1 use.
func DefaultConfig() Config {
	return Config{ClipLow: 0.2, ClipHigh: 0.2, KLCoefficient: 0.001, NormalizeStd: true, DropZeroVariance: true}
}

// Validate reports every value that is out of range.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, key string, value float64, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("grpo.%s is %g, want %s", key, value, want))
		}
	}
	check(c.ClipLow > 0 && c.ClipLow <= 1, "clip_low", c.ClipLow, "more than 0 and at most 1")
	check(c.ClipHigh > 0 && c.ClipHigh <= 10, "clip_high", c.ClipHigh, "more than 0 and at most 10")
	check(c.KLCoefficient >= 0 && c.KLCoefficient <= 1, "kl_coefficient", c.KLCoefficient, "0 to 1")
	return errors.Join(errs...)
}

// GRPO is the algorithm. It has no state.
type GRPO struct{ config Config }

var _ learner.Algorithm = (*GRPO)(nil)

// New makes the algorithm from a valid configuration.
func New(config Config) *GRPO { return &GRPO{config: config} }

// NeedsReference is true when β is not 0.
func (g *GRPO) NeedsReference() bool { return g.config.KLCoefficient > 0 }

// Advantages gives every policy token of output i the group-relative reward
// (r_i − mean(r)) / std(r), "outcome supervision" in §4.1.2.
func (g *GRPO) Advantages(group []learner.Sequence, rewards []float64) bool {
	mean, std := rlmath.MeanStd(rewards)
	scale := 1.0
	if g.config.NormalizeStd {
		scale = 1 / (std + stdFloor)
	}
	for i, s := range group {
		advantage := float32((rewards[i] - mean) * scale)
		for t, m := range s.Mask {
			if m {
				s.Advantages[t] = advantage
			}
		}
	}
	return std > stdFloor || !g.config.DropZeroVariance
}

// Loss is −J of eq. 3 for one output, with its derivative with respect to
// log π_θ of every policy token.
func (g *GRPO) Loss(s *learner.Sequence, logp []float32, normaliser float64, grad []float32) learner.Terms {
	var terms learner.Terms
	low, high, beta := 1-g.config.ClipLow, 1+g.config.ClipHigh, g.config.KLCoefficient
	for t, m := range s.Mask {
		if !m {
			continue
		}
		a := float64(s.Advantages[t])
		logRatio, inside := rlmath.LogRatio(logp[t], s.Behavior[t])
		ratio := math.Exp(logRatio)

		surrogate := min(ratio*a, min(max(ratio, low), high)*a)
		loss, slope := -surrogate, 0.0
		switch clipped := (a > 0 && ratio > high) || (a < 0 && ratio < low); {
		case clipped:
			terms.Clipped++
		case inside:
			slope = -ratio * a
		}
		if beta > 0 {
			kl, klSlope := rlmath.K3(logp[t], s.Reference[t])
			loss += beta * kl
			slope += beta * klSlope
			terms.KL += kl
		}
		grad[t] = float32(slope / normaliser)

		terms.Tokens++
		terms.Loss += loss / normaliser
		terms.Drift += ratio - 1 - logRatio
		terms.Entropy -= float64(logp[t])
		terms.Ratio += ratio
		terms.RatioMax = max(terms.RatioMax, ratio)
	}
	return terms
}
