package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// rmsNorm writes x·gain / sqrt(mean(x²)+eps) to dst and returns the factor
// 1/sqrt(mean(x²)+eps) (Zhang and Sennrich 2019, arXiv 1910.07467).
func rmsNorm(dst, x, gain []float32, eps float32) float32 {
	inverse := float32(1 / math.Sqrt(float64(kernel.Dot(x, x))/float64(len(x))+float64(eps)))
	kernel.Mul(dst, x, gain, inverse)
	return inverse
}

// rmsNormBackward adds the gradient of rmsNorm to dx, and to dGain unless it is
// nil. scratch has the length of x.
func rmsNormBackward(dx, dGain, dy, x, gain, scratch []float32, inverse float32) {
	kernel.Mul(scratch, dy, gain, 1)
	c := kernel.Dot(scratch, x) * inverse * inverse * inverse / float32(len(x))
	kernel.Axpy(inverse, scratch, dx)
	kernel.Axpy(-c, x, dx)
	if dGain != nil {
		kernel.MulAdd(dGain, dy, x, inverse)
	}
}

// normaliseHeads normalises the heads that lie one after another in x, each by
// itself (Qwen3, arXiv 2505.09388), and keeps in raw what they were and in
// inverse the factor of each.
func normaliseHeads(x, raw, inverse, gain []float32, eps float32) {
	copy(raw, x)
	dim := len(gain)
	for h := range inverse {
		inverse[h] = rmsNorm(x[h*dim:][:dim], raw[h*dim:][:dim], gain, eps)
	}
}

// normaliseHeadsBackward turns the gradient dx of normaliseHeads' output into that of its
// input and adds to dGain unless it is nil. scratch has room for two heads.
func normaliseHeadsBackward(dx, dGain, raw, inverse, gain, scratch []float32) {
	dim := len(gain)
	dy, scratch := scratch[:dim], scratch[dim:][:dim]
	for h, factor := range inverse {
		head := dx[h*dim:][:dim]
		copy(dy, head)
		clear(head)
		rmsNormBackward(head, dGain, dy, raw[h*dim:][:dim], gain, scratch, factor)
	}
}

// sumGains runs f over blocks of rows and adds the gradients of a norm's gain
// that it leaves in part. They are added in order, so that the result does not
// depend on the number of threads. With a nil dGain part is nil.
func (t *Trainer) sumGains(dGain []float32, rows int, f func(part, scratch []float32, from, to int)) {
	n := len(dGain)
	gains := t.acts.gains[:blocks(rows)*n]
	clear(gains)
	t.workers.rowBlocks(rows, func(thread, block, from, to int) {
		var part []float32
		if dGain != nil {
			part = gains[block*n:][:n]
		}
		f(part, t.acts.thread[thread].row, from, to)
	})
	for block := range blocks(rows) {
		kernel.Add(dGain, gains[block*n:][:n])
	}
}

// normBackward adds the gradient of the norm of rows of x [rows, hidden] to dx
// and dGain.
func (t *Trainer) normBackward(dx, dGain, dy, x, gain, inverse []float32, rows int) {
	d := len(gain)
	t.sumGains(dGain, rows, func(part, scratch []float32, from, to int) {
		for r := from; r < to; r++ {
			rmsNormBackward(dx[r*d:][:d], part, dy[r*d:][:d], x[r*d:][:d], gain, scratch[:d], inverse[r])
		}
	})
}
