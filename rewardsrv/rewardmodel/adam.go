package rewardmodel

import "math"

// adam is the optimiser of Kingma and Ba (2015).
type adam struct {
	step   uint64
	mean   []float32 // running mean of the gradient
	square []float32 // running mean of its square
}

const (
	adamBeta1   = 0.9
	adamBeta2   = 0.999
	adamEpsilon = 1e-8
)

func newAdam() *adam {
	return &adam{mean: make([]float32, parameters), square: make([]float32, parameters)}
}

// update changes the network by one step against a gradient that was summed over
// examples. The norm of the mean gradient is bounded by clip. A gradient that is
// not finite is left out, since it would spoil the network for good.
func (o *adam) update(n, g network, examples int, rate, clip float64) {
	squares := 0.0
	for _, d := range g {
		squares += float64(d) * float64(d)
	}
	if math.IsNaN(squares) || math.IsInf(squares, 0) {
		return
	}
	scale := 1 / float64(examples)
	if norm := math.Sqrt(squares) * scale; norm > clip {
		scale *= clip / norm
	}
	o.step++
	step := float64(o.step)
	correction := math.Sqrt(1 - math.Pow(adamBeta2, step))
	rate *= correction / (1 - math.Pow(adamBeta1, step))
	epsilon := adamEpsilon * correction
	for i := range n {
		d := float64(g[i]) * scale
		m := adamBeta1*float64(o.mean[i]) + (1-adamBeta1)*d
		v := adamBeta2*float64(o.square[i]) + (1-adamBeta2)*d*d
		o.mean[i], o.square[i] = float32(m), float32(v)
		n[i] -= float32(rate * m / (math.Sqrt(v) + epsilon))
	}
}
