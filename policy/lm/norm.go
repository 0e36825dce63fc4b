package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// rmsNorm writes x·gain / sqrt(mean(x²)+eps) to dst and returns the factor
// 1/sqrt(mean(x²)+eps) (Zhang and Sennrich 2019, arXiv 1910.07467).
func rmsNorm(dst, x, gain []float32, eps float32) float32 {
	inverse := float32(1 / math.Sqrt(float64(kernel.Dot(x, x))/float64(len(x))+float64(eps)))
	for i, v := range x {
		dst[i] = v * inverse * gain[i]
	}
	return inverse
}

// rmsNormBackward adds the gradient of rmsNorm to dx and dGain.
func rmsNormBackward(dx, dGain, dy, x, gain []float32, inverse float32) {
	var dot float32
	for i, v := range x {
		dot += dy[i] * gain[i] * v
	}
	c := dot * inverse * inverse * inverse / float32(len(x))
	for i, v := range x {
		dx[i] += dy[i]*gain[i]*inverse - v*c
		dGain[i] += dy[i] * v * inverse
	}
}
