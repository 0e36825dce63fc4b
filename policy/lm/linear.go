package lm

import "github.com/forager-rl/forager/policy/lm/kernel"

// linear is one product of a layer, y = x·Wᵀ + b, and what is trained of it:
// the matrix and bias themselves, or low-rank terms on top. Projections that
// share their input are one product.
type linear struct {
	in, out        int
	weight, bias   []float32 // [out, in]; [out] or nil
	dWeight, dBias []float32 // nil when frozen
	lowRank        *lowRank  // nil without adapters
	frozenBelow    bool      // nothing before it is trained
}

// lowRank adds scale·(x·Aᵀ)·Bᵀ to some columns of a product (LoRA, Hu et al.
// 2021, arXiv 2106.09685, equation 3). The A of projections that share their
// input lie one after another and are one product.
type lowRank struct {
	rank  int
	scale float32
	a, dA []float32 // [parts·rank, in]
	parts []lowRankPart
}

type lowRankPart struct {
	from, to int       // columns of the product
	b, dB    []float32 // [to-from, rank]
}

func (l *lowRank) width() int { return len(l.parts) * l.rank }

// forward writes x·Wᵀ + b to y, or adds it, for rows rows.
func (l *linear) forward(t *Trainer, y, x []float32, rows int, add bool) {
	pool := t.workers.pool
	pool.MatMulTransB(y, l.out, x, l.in, l.weight, l.in, rows, l.out, l.in, add)
	if l.bias != nil {
		t.workers.rows(rows, func(from, to int) {
			for r := from; r < to; r++ {
				kernel.Add(y[r*l.out:][:l.out], l.bias)
			}
		})
	}
	if low := l.lowRank; low != nil {
		width := low.width()
		l.compress(t, x, rows)
		for i, part := range low.parts {
			pool.MatMulTransB(y[part.from:], l.out, t.acts.low[i*low.rank:], width, part.b, low.rank, rows, part.to-part.from, low.rank, true)
		}
	}
}

// compress fills acts.low with scale·x·Aᵀ.
func (l *linear) compress(t *Trainer, x []float32, rows int) {
	width := l.lowRank.width()
	t.workers.pool.MatMulTransB(t.acts.low, width, x, l.in, l.lowRank.a, l.in, rows, width, l.in, false)
	kernel.Scale(l.lowRank.scale, t.acts.low[:rows*width])
}

// backward is backwardInput and backwardWeights.
func (l *linear) backward(t *Trainer, dx, dy, x []float32, rows int, add bool) {
	l.backwardInput(t, dx, dy, rows, add)
	l.backwardWeights(t, dy, x, rows)
}

// backwardInput writes the gradient of the input to dx, or adds it, given the
// gradient dy of the output. It leaves acts.dLow for backwardWeights.
func (l *linear) backwardInput(t *Trainer, dx, dy []float32, rows int, add bool) {
	pool := t.workers.pool
	if !l.frozenBelow {
		pool.MatMul(dx, l.in, dy, l.out, l.weight, l.in, rows, l.in, l.out, add)
	}
	low := l.lowRank
	if low == nil {
		return
	}
	width := low.width()
	for i, part := range low.parts {
		pool.MatMul(t.acts.dLow[i*low.rank:], width, dy[part.from:], l.out, part.b, low.rank, rows, low.rank, part.to-part.from, false)
	}
	kernel.Scale(low.scale, t.acts.dLow[:rows*width])
	if !l.frozenBelow {
		pool.MatMul(dx, l.in, t.acts.dLow, width, low.a, l.in, rows, l.in, width, true)
	}
}

// backwardWeights adds the gradients of what is trained, given the input x.
func (l *linear) backwardWeights(t *Trainer, dy, x []float32, rows int) {
	pool := t.workers.pool
	if l.dWeight != nil {
		pool.MatMulTransA(l.dWeight, l.in, dy, l.out, x, l.in, l.out, l.in, rows, true)
	}
	if l.dBias != nil {
		t.addRows(l.dBias, dy, rows)
	}
	low := l.lowRank
	if low == nil {
		return
	}
	width := low.width()
	l.compress(t, x, rows)
	for i, part := range low.parts {
		pool.MatMulTransA(part.dB, low.rank, dy[part.from:], l.out, t.acts.low[i*low.rank:], width, part.to-part.from, low.rank, rows, true)
	}
	pool.MatMulTransA(low.dA, l.in, t.acts.dLow, width, x, l.in, width, l.in, rows, true)
}

// addRows adds the sum of the rows of y to sum. Threads share out the columns,
// so that the result does not depend on their number.
func (t *Trainer) addRows(sum, y []float32, rows int) {
	const strip = 64
	n := len(sum)
	t.workers.each((n+strip-1)/strip, func(_ *kernel.Pool, _, i int) {
		from, to := i*strip, min(n, (i+1)*strip)
		for r := range rows {
			kernel.Add(sum[from:to], y[r*n+from:r*n+to])
		}
	})
}
