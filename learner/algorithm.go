package learner

import "math"

// Algorithm is what a paper contributes: advantages from rewards, and a loss
// with its derivative. The step loop knows nothing else about it. Methods are
// pure and may be called concurrently for different sequences.
type Algorithm interface {
	// Advantages writes the advantage of every policy token of the group's
	// sequences, rewards[i] being the reward of group[i]. informative is false
	// when the group cannot teach, for instance because all rewards are equal;
	// its credit is then returned and another group takes its place.
	Advantages(group []Sequence, rewards []float64) (informative bool)
	// Loss adds up the loss of one sequence and writes its derivative with
	// respect to logp into grad, both divided by normaliser (the policy tokens of
	// the optimiser step). grad comes in as zeros and stays zero where Mask is
	// false.
	Loss(s *Sequence, logp []float32, normaliser float64, grad []float32) Terms
	// NeedsReference says whether Sequence.Reference is used.
	NeedsReference() bool
}

// Terms are what one sequence contributed to an optimiser step. Loss is already
// divided by the normaliser; the others are plain sums over policy tokens, so
// that a mean is one division by Tokens.
type Terms struct {
	Tokens   int     // policy tokens
	Loss     float64 // share of the step's loss
	KL       float64 // divergence from the reference policy
	Drift    float64 // divergence of the current policy from the one that sampled
	Entropy  float64 // −log π of the sampled tokens, an estimate of the entropy
	Ratio    float64 // importance ratios, current over sampling policy
	RatioMax float64 // the largest of them, not a sum
	Clipped  int     // tokens whose gradient the trust region cut off
}

// Add accumulates other into t.
func (t *Terms) Add(other Terms) {
	t.Tokens += other.Tokens
	t.Loss += other.Loss
	t.KL += other.KL
	t.Drift += other.Drift
	t.Entropy += other.Entropy
	t.Ratio += other.Ratio
	t.RatioMax = max(t.RatioMax, other.RatioMax)
	t.Clipped += other.Clipped
}

// fill writes the means of a step with that many updates. A value that is not
// finite is left out as 0, since JSON has no word for it; NonFinite counts it.
func (t *Terms) fill(m *StepMetrics, updates int) {
	mean := func(sum float64, n int) float64 {
		if v := ratio(sum, n); !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
		return 0
	}
	m.Loss = mean(t.Loss, updates)
	m.KL = mean(t.KL, t.Tokens)
	m.Drift = mean(t.Drift, t.Tokens)
	m.Entropy = mean(t.Entropy, t.Tokens)
	m.RatioMean = mean(t.Ratio, t.Tokens)
	m.RatioMax = t.RatioMax
	m.ClipFraction = mean(float64(t.Clipped), t.Tokens)
}
