package rewardmodel

import (
	"math"
	"math/rand/v2"
)

// units is the width of the hidden layer.
const units = 32

// Where parameters lie in a network.
const (
	atBias     = units * featCount
	atOut      = atBias + units
	atDirect   = atOut + units
	atConstant = atDirect + featCount
	parameters = atConstant + 1
)

// network is the parameters W (units × features), b, u, v and c, one after the
// other, of
//
//	h = max(0, W·x + b)
//	score = u·h + v·x + c
//
// The direct term v·x is the wide half of Wide & Deep (Cheng et al. 2016): it is
// right after a few labels, when the hidden layer is not yet.
type network []float32

// newNetwork draws the parameters that do not begin at 0.
func newNetwork(rng *rand.Rand) network {
	n := make(network, parameters)
	uniform := func(of []float32, variance float64) {
		for i := range of {
			of[i] = float32((2*rng.Float64() - 1) * math.Sqrt(3*variance))
		}
	}
	uniform(n[:atBias], 2.0/featCount) // He et al. 2015, for units that cut off below 0
	uniform(n[atOut:atDirect], 1.0/units)
	return n
}

// activations is what forward leaves for backward.
type activations struct {
	features features
	hidden   [units]float32 // after dropout
	keep     [units]float32 // what a unit was multiplied by: 0 when it was left out
}

// forward scores a reading. Dropout (Srivastava et al. 2014) happens where rng is
// not nil.
func (n network) forward(a *activations, r *reading, w *weights, dropout float32, rng *rand.Rand) float32 {
	a.features.compute(r, w)
	x := a.features[:]
	score := n[atConstant] + dot(n[atDirect:atConstant], x)
	for j := range units {
		a.hidden[j], a.keep[j] = 0, 1
		if rng != nil {
			a.keep[j] = 1 / (1 - dropout)
			if rng.Float32() < dropout {
				a.keep[j] = 0
				continue
			}
		}
		if h := n[atBias+j] + dot(n[j*featCount:][:featCount], x); h > 0 {
			a.hidden[j] = h * a.keep[j]
			score += n[atOut+j] * a.hidden[j]
		}
	}
	return score
}

// backward adds to the gradient g what a change of the score by slope means for
// each parameter.
func (n network) backward(g network, a *activations, slope float32) {
	x := a.features[:]
	g[atConstant] += slope
	accumulate(g[atDirect:atConstant], slope, x)
	for j, h := range a.hidden {
		if h == 0 { // left out, or cut off
			continue
		}
		g[atOut+j] += slope * h
		d := slope * n[atOut+j] * a.keep[j]
		g[atBias+j] += d
		accumulate(g[j*featCount:][:featCount], d, x)
	}
}

// dot is the inner product of two vectors of one length; four sums at a time
// keep the processor's adders busy.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// accumulate adds s·x to y.
func accumulate(y []float32, s float32, x []float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += s * v
	}
}

// logistic is the cross-entropy of a label between 0 and 1 and the probability
// that a logit stands for, and its derivative by the logit. With the difference
// of two scores as logit it is the loss of Bradley and Terry (1952), whose ties
// have the label 0.5.
func logistic(logit, label float32) (loss, slope float32) {
	z := float64(logit)
	loss = float32(max(z, 0) - z*float64(label) + math.Log1p(math.Exp(-math.Abs(z))))
	return loss, sigmoid(logit) - label
}

func sigmoid(z float32) float32 { return float32(1 / (1 + math.Exp(-float64(z)))) }
