package rewardmodel

import "math"

// adam is Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and
// Hutter 2019). Rows of the bag are updated only in steps that use them, as
// sparse implementations do; their moments rest in between.
type adam struct {
	step          uint64
	rows, rows2   []float32 // running mean of the gradient and of its square
	dense, dense2 []float32
}

const (
	adamBeta1   = 0.9
	adamBeta2   = 0.999
	adamEpsilon = 1e-8
	weightDecay = 0.01 // per step, times the learning rate
)

func newAdam() *adam {
	return &adam{
		rows: make([]float32, rowCount*rowWidth), rows2: make([]float32, rowCount*rowWidth),
		dense: make([]float32, denseSize), dense2: make([]float32, denseSize),
	}
}

// all is what the optimiser remembers beside its step.
func (o *adam) all() [4][]float32 { return [...][]float32{o.rows, o.rows2, o.dense, o.dense2} }

// update changes the network by one step along the mean gradient of a batch of
// examples. The gradient's norm is bounded by clip; one that is not finite is
// left out, since it would spoil the network for good.
func (o *adam) update(n *network, g *gradient, examples int, rate, clip float64) {
	squares := norm2(g.dense)
	for _, row := range g.touched {
		squares += norm2(g.rows[int(row)*rowWidth:][:rowWidth])
	}
	scale := 1 / float64(examples)
	if math.IsNaN(squares) || math.IsInf(squares, 0) {
		return
	}
	if norm := math.Sqrt(squares) * scale; norm > clip {
		scale *= clip / norm
	}
	o.step++
	s := stepSize{
		scale: float32(scale),
		rate:  float32(rate * math.Sqrt(1-math.Pow(adamBeta2, float64(o.step))) / (1 - math.Pow(adamBeta1, float64(o.step)))),
		decay: float32(1 - rate*weightDecay),
	}
	s.apply(n.dense, g.dense, o.dense, o.dense2)
	for _, row := range g.touched {
		from, to := int(row)*rowWidth, (int(row)+1)*rowWidth
		s.apply(n.rows[from:to], g.rows[from:to], o.rows[from:to], o.rows2[from:to])
	}
}

// stepSize is what the parameters of one step have in common.
type stepSize struct{ scale, rate, decay float32 }

func (s stepSize) apply(p, g, m, v []float32) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	for i := range p {
		d := g[i] * s.scale
		m[i] = adamBeta1*m[i] + (1-adamBeta1)*d
		v[i] = adamBeta2*v[i] + (1-adamBeta2)*d*d
		p[i] = p[i]*s.decay - s.rate*m[i]/(float32(math.Sqrt(float64(v[i])))+adamEpsilon)
	}
}

func norm2(g []float32) (sum float64) {
	for _, x := range g {
		sum += float64(x) * float64(x)
	}
	return sum
}
