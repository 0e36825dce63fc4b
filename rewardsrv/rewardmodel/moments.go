package rewardmodel

import "math"

// moments is a running mean and variance that forgets: scores move while the
// network learns, and those of long ago say nothing about today's.
type moments struct {
	mean, variance float64
	count          uint64 // of batches
}

// momentsRate is the weight of the newest batch.
const momentsRate = 0.1

// add merges a batch of values: the moments of the mixture of what was known and
// the batch (Chan, Golub and LeVeque 1983, with fixed weights).
func (m *moments) add(values []float32) {
	if len(values) == 0 {
		return
	}
	mean, variance := 0.0, 0.0
	for _, v := range values {
		mean += float64(v)
	}
	mean /= float64(len(values))
	for _, v := range values {
		variance += (float64(v) - mean) * (float64(v) - mean)
	}
	variance /= float64(len(values))
	rate := max(momentsRate, 1/float64(m.count+1)) // the plain mean of the first few
	m.count++
	between := mean - m.mean
	m.mean += rate * between
	m.variance = (1-rate)*m.variance + rate*variance + rate*(1-rate)*between*between
}

// normalise gives a value mean 0 and variance 1. Without a spread there is nothing to tell, and everything is 0.
func (m *moments) normalise(v float64) float64 {
	if m.variance < 1e-12 {
		return 0
	}
	return (v - m.mean) / math.Sqrt(m.variance)
}
