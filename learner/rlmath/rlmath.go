// Package rlmath is the pure slice maths that algorithms share: statistics of a
// group, estimators of the KL divergence, and ratios that cannot overflow. It
// has no state, does no I/O and imports the standard library only. Every
// learner/<algorithm> may import it.
package rlmath

import "math"

// MaxLogRatio bounds a difference of log-probabilities before it is
// exponentiated: e^20 is about 5e8, far outside any trust region and far inside
// what float32 holds.
const MaxLogRatio = 20

// Mean is the arithmetic mean, 0 of nothing.
func Mean(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// MeanStd gives the mean and the population standard deviation (divisor n), 0
// and 0 of nothing.
func MeanStd(x []float64) (mean, std float64) {
	if len(x) == 0 {
		return 0, 0
	}
	mean = Mean(x)
	sum := 0.0
	for _, v := range x {
		sum += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sum / float64(len(x)))
}

// LogRatio is logp - other, clamped to ±MaxLogRatio. inside is false where the
// clamp was active or the difference is not a number; the derivative there is 0.
func LogRatio(logp, other float32) (logRatio float64, inside bool) {
	d := float64(logp) - float64(other)
	switch {
	case d > MaxLogRatio:
		return MaxLogRatio, false
	case d < -MaxLogRatio:
		return -MaxLogRatio, false
	case math.IsNaN(d):
		return 0, false
	}
	return d, true
}

// K3 estimates KL(p ‖ q) from one sample of p: q/p − 1 − log(q/p). It is
// unbiased, never negative and of low variance. slope is its derivative with
// respect to log p, 1 − q/p. (Schulman, "Approximating KL divergence", 2020.)
func K3(logp, logq float32) (kl, slope float64) {
	d, inside := LogRatio(logq, logp)
	r := math.Exp(d)
	if !inside {
		return r - 1 - d, 0
	}
	return r - 1 - d, 1 - r
}
