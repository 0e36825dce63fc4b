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

// rmsNormBackward adds the gradient of rmsNorm to dx and dGain. scratch has the
// length of x.
func rmsNormBackward(dx, dGain, dy, x, gain, scratch []float32, inverse float32) {
	kernel.Mul(scratch, dy, gain, 1)
	c := kernel.Dot(scratch, x) * inverse * inverse * inverse / float32(len(x))
	kernel.Axpy(inverse, scratch, dx)
	kernel.Axpy(-c, x, dx)
	kernel.MulAdd(dGain, dy, x, inverse)
}
