package rewardmodel

import (
	"math"
	"math/rand/v2"
)

// The network's measures.
const (
	rowWidth = 8  // of the embedding bag
	units    = 32 // of the hidden layer
	inputs   = featCount + bagFields*rowWidth
	rowCount = 1 << rowBits

	// Where the dense parameters lie in their one slice.
	atBias    = units * inputs
	atOut     = atBias + units
	atSkip    = atOut + units
	atOutBias = atSkip + featCount
	denseSize = atOutBias + 1
)

// network maps a reading to a score:
//
//	x = features, mean of the rows of each field of the bag
//	h = max(0, W·x + b)
//	score = u·h + v·features + c
//
// The bag is fastText's (Joulin et al. 2017) over hashed words (Weinberger et al.
// 2009). The direct term v is the wide half of Wide & Deep (Cheng et al. 2016):
// it is right after a few labels, when the hidden layer is not.
type network struct {
	rows  []float32 // rowCount × rowWidth
	dense []float32 // W (units × inputs), b, u, v, c
}

// newNetwork draws the weights that do not begin at 0.
func newNetwork(rng *rand.Rand) *network {
	n := emptyNetwork()
	uniform := func(of []float32, most float64) {
		for i := range of {
			of[i] = float32((2*rng.Float64() - 1) * most)
		}
	}
	uniform(n.rows, 1.0/rowWidth)
	uniform(n.dense[:atBias], math.Sqrt(6.0/inputs)) // He et al. 2015, for layers that end in max(0, .)
	uniform(n.dense[atOut:atSkip], math.Sqrt(3.0/units))
	return n
}

func emptyNetwork() *network {
	return &network{rows: make([]float32, rowCount*rowWidth), dense: make([]float32, denseSize)}
}

func (n *network) clone() *network {
	return &network{rows: append([]float32(nil), n.rows...), dense: append([]float32(nil), n.dense...)}
}

// activations is what forward leaves for backward.
type activations struct {
	features features
	x        [inputs]float32
	hidden   [units]float32 // after dropout
	keep     [units]float32 // 0 for a unit that was left out, else what it was multiplied by
}

// forward scores a reading. Dropout happens where rng is not nil.
func (n *network) forward(a *activations, r *reading, w *weights, dropout float32, rng *rand.Rand) float32 {
	a.features.compute(r, w)
	copy(a.x[:], a.features[:])
	for f := range r.bag {
		n.mean(a.x[featCount+f*rowWidth:][:rowWidth], &r.bag[f])
	}
	score := n.dense[atOutBias] + dot(n.dense[atSkip:atOutBias], a.features[:])
	for j := range units {
		a.keep[j] = 1
		if rng != nil {
			a.keep[j] = 1 / (1 - dropout)
			if rng.Float32() < dropout {
				a.keep[j] = 0
			}
		}
		h := float32(0)
		if a.keep[j] != 0 {
			h = max(0, n.dense[atBias+j]+dot(n.dense[j*inputs:][:inputs], a.x[:])) * a.keep[j]
		}
		a.hidden[j] = h
		score += n.dense[atOut+j] * h
	}
	return score
}

// mean writes the mean of a field's rows to out.
func (n *network) mean(out []float32, f *bagField) {
	if f.count == 0 {
		clear(out)
		return
	}
	var sum [rowWidth]float32
	for _, row := range f.rows[:f.count] {
		e := (*[rowWidth]float32)(n.rows[int(row)*rowWidth:])
		for k := range sum {
			sum[k] += e[k]
		}
	}
	scale := 1 / float32(f.count)
	for k := range out {
		out[k] = sum[k] * scale
	}
}

// gradient is the sum of the gradients of a batch.
type gradient struct {
	rows    []float32 // all 0 but for touched
	touched []uint16  // rows with a gradient
	is      []bool    // whether a row is in touched
	dense   []float32
}

func newGradient() *gradient {
	return &gradient{rows: make([]float32, rowCount*rowWidth), is: make([]bool, rowCount), dense: make([]float32, denseSize)}
}

func (g *gradient) clear() {
	clear(g.dense)
	for _, row := range g.touched {
		clear(g.rows[int(row)*rowWidth:][:rowWidth])
		g.is[row] = false
	}
	g.touched = g.touched[:0]
}

// backward adds to g what a change of the score by slope means for each parameter.
func (n *network) backward(g *gradient, a *activations, r *reading, slope float32) {
	g.dense[atOutBias] += slope
	axpy(g.dense[atSkip:atOutBias], slope, a.features[:])
	var dx [bagFields * rowWidth]float32
	for j := range units {
		if a.hidden[j] == 0 { // left out, or below 0
			continue
		}
		g.dense[atOut+j] += slope * a.hidden[j]
		d := slope * n.dense[atOut+j] * a.keep[j]
		g.dense[atBias+j] += d
		axpy(g.dense[j*inputs:][:inputs], d, a.x[:])
		axpy(dx[:], d, n.dense[j*inputs+featCount:][:len(dx)])
	}
	for f := range r.bag {
		field := &r.bag[f]
		if field.count == 0 {
			continue
		}
		d := (*[rowWidth]float32)(dx[f*rowWidth:])
		for k := range d {
			d[k] /= float32(field.count)
		}
		for _, row := range field.rows[:field.count] {
			if !g.is[row] {
				g.is[row] = true
				g.touched = append(g.touched, row)
			}
			e := (*[rowWidth]float32)(g.rows[int(row)*rowWidth:])
			for k := range d {
				e[k] += d[k]
			}
		}
	}
}

// dot is the inner product; four sums at once keep the processor's adders busy.
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

// axpy adds s·x to y.
func axpy(y []float32, s float32, x []float32) {
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
	loss = float32(math.Max(z, 0) - z*float64(label) + math.Log1p(math.Exp(-math.Abs(z))))
	return loss, sigmoid(logit) - label
}

func sigmoid(z float32) float32 { return float32(1 / (1 + math.Exp(-float64(z)))) }
