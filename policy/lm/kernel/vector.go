package kernel

import (
	"fmt"
	"math"
	"slices"
)

// Dot returns Σ a[i]·b[i]. It panics, as all functions here, if the lengths differ.
func Dot(a, b []float32) float32 {
	sameLength("Dot", len(a), len(b))
	if len(a) == 0 {
		return 0
	}
	return active.dot(a, b)
}

// Axpy adds alpha·x to y.
func Axpy(alpha float32, x, y []float32) {
	sameLength("Axpy", len(x), len(y))
	if len(x) > 0 {
		active.axpy(alpha, x, y)
	}
}

// Scale multiplies x by alpha.
func Scale(alpha float32, x []float32) {
	if len(x) > 0 {
		active.scale(alpha, x)
	}
}

// Add adds x to dst.
func Add(dst, x []float32) {
	sameLength("Add", len(dst), len(x))
	if len(x) > 0 {
		active.add(dst, x)
	}
}

// Mul sets dst = alpha·x·y, element by element. dst may be x or y. It makes
// RMSNorm's output and part of its gradient.
func Mul(dst, x, y []float32, alpha float32) {
	sameLength("Mul", len(dst), len(x))
	sameLength("Mul", len(dst), len(y))
	if len(dst) > 0 {
		active.mul(dst, x, y, alpha)
	}
}

// MulAdd adds alpha·x·y to dst, element by element. x and y may be the same.
func MulAdd(dst, x, y []float32, alpha float32) {
	sameLength("MulAdd", len(dst), len(x))
	sameLength("MulAdd", len(dst), len(y))
	if len(dst) > 0 {
		active.mulAdd(dst, x, y, alpha)
	}
}

// Rotate turns every pair (x[i], y[i]) by an angle given by its cosine and sine,
//
//	x, y ← x·cos - y·sin, y·cos + x·sin
//
// which is the rotary position embedding (Su et al. 2021) of the two halves of
// a head. With the sine negated it turns back, which is also the gradient. x
// and y must not overlap.
func Rotate(x, y, cos, sin []float32) {
	for _, n := range [...]int{len(y), len(cos), len(sin)} {
		sameLength("Rotate", len(x), n)
	}
	if len(x) > 0 {
		active.rotate(x, y, cos, sin)
	}
}

// SumSquares returns Σ x[i]², summed in float64.
func SumSquares(x []float32) float64 {
	if len(x) == 0 {
		return 0
	}
	return active.sumSquares(x)
}

// Max returns the greatest element, -Inf if there is none. NaNs are passed over.
func Max(x []float32) float32 {
	if len(x) == 0 {
		return float32(math.Inf(-1))
	}
	return active.max(x)
}

// ExpShiftSum sets dst[i] = exp(src[i]-shift) and returns the sum of dst: with
// shift = Max(src) it is the softmax before division. The relative error of an
// element is at most 2e-6 against the exponential of the rounded difference.
// Results below the smallest normal float32 are 0, above the greatest +Inf; NaN
// gives NaN. dst may be src.
func ExpShiftSum(dst, src []float32, shift float32) float32 {
	sameLength("ExpShiftSum", len(dst), len(src))
	if len(dst) == 0 {
		return 0
	}
	return active.expShiftSum(dst, src, shift)
}

// SiluMul computes the gated unit of SwiGLU (Shazeer 2020),
// dst[i] = gate[i]·σ(gate[i])·up[i] with σ(x) = 1/(1+exp(-x)). dst may be gate
// or up.
func SiluMul(dst, gate, up []float32) {
	sameLength("SiluMul", len(dst), len(gate))
	sameLength("SiluMul", len(dst), len(up))
	if len(dst) > 0 {
		active.siluMul(dst, gate, up)
	}
}

// SiluMulBackward is the gradient of SiluMul: with s = σ(gate[i]),
//
//	dGate[i] = dOut[i]·up[i]·s·(1 + gate[i]·(1-s))
//	dUp[i]   = dOut[i]·gate[i]·s
//
// Both are overwritten. Each may be one of the inputs.
func SiluMulBackward(dGate, dUp, dOut, gate, up []float32) {
	for _, n := range [...]int{len(dUp), len(dOut), len(gate), len(up)} {
		sameLength("SiluMulBackward", len(dGate), n)
	}
	if len(dGate) > 0 {
		active.siluMulBackward(dGate, dUp, dOut, gate, up)
	}
}

// ArgMax returns the index of the greatest element, the first of equal ones,
// and -1 if there is none but NaNs.
func ArgMax(x []float32) int {
	const block = 256
	best, at := float32(math.Inf(-1)), -1
	for from := 0; from < len(x); from += block {
		part := x[from:min(from+block, len(x))]
		if most := Max(part); most > best || at < 0 {
			if i := slices.Index(part, most); i >= 0 {
				best, at = most, from+i
			}
		}
	}
	return at
}

// AdamWParams are the numbers of one step of AdamW.
type AdamWParams struct {
	LR          float32 // learning rate of this step
	Beta1       float32 // decay of the mean of gradients, in [0,1)
	Beta2       float32 // decay of the mean of squared gradients, in [0,1)
	Eps         float32 // added to the root, above 0
	WeightDecay float32 // decoupled from the gradient, scaled by LR
	Correction1 float32 // 1-Beta1^t at step t = 1, 2, ...
	Correction2 float32 // 1-Beta2^t
	GradScale   float32 // multiplies the gradient first: 1, or the factor of clipping
}

// AdamW makes one step of Adam with decoupled weight decay (Loshchilov and
// Hutter 2019, algorithm 2, schedule and learning rate in one LR):
//
//	g ← GradScale·g
//	m ← Beta1·m + (1-Beta1)·g
//	v ← Beta2·v + (1-Beta2)·g²
//	w ← w - LR·( (m/Correction1) / (√(v/Correction2) + Eps) + WeightDecay·w )
//
// w, m and v are updated, g stays as it is.
func AdamW(w, g, m, v []float32, p AdamWParams) {
	for _, n := range [...]int{len(g), len(m), len(v)} {
		sameLength("AdamW", len(w), n)
	}
	if len(w) > 0 {
		active.adamW(w, g, m, v, p.LR, 1-p.Beta1, 1-p.Beta2, p.Eps, p.WeightDecay,
			1/p.Correction1, 1/p.Correction2, p.GradScale)
	}
}

func sameLength(op string, a, b int) {
	if a != b {
		panic(fmt.Sprintf("kernel: %s: vectors of %d and %d floats", op, a, b))
	}
}
