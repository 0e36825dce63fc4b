package lm

import (
	"math"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// rope holds the cosines and sines of rotary position embedding (Su et al.
// 2021, arXiv 2104.09864) in the half-split layout of Hugging Face's Llama:
// dimension i is rotated with dimension i + dim/2.
type rope struct {
	half              int
	cos, sin, reverse []float32 // [positions, half]; reverse is -sin
}

func newRope(a Architecture) rope {
	half := a.HeadDim / 2
	r := rope{half: half, cos: make([]float32, a.ContextLength*half), sin: make([]float32, a.ContextLength*half)}
	r.reverse = make([]float32, len(r.sin))
	frequencies, magnitude := a.rotations()
	for pos := range a.ContextLength {
		for i, frequency := range frequencies {
			angle := float64(pos) * frequency
			r.cos[pos*half+i] = float32(magnitude * math.Cos(angle))
			r.sin[pos*half+i] = float32(magnitude * math.Sin(angle))
			r.reverse[pos*half+i] = -r.sin[pos*half+i]
		}
	}
	return r
}

// rotate turns the heads that lie one after another in x by the angles of pos;
// back is the opposite turn, its transpose, for gradients.
func (r rope) rotate(x []float32, pos int) { r.turn(x, pos, r.sin) }

func (r rope) back(x []float32, pos int) { r.turn(x, pos, r.reverse) }

func (r rope) turn(x []float32, pos int, sines []float32) {
	cos, sin := r.cos[pos*r.half:][:r.half], sines[pos*r.half:][:r.half]
	for h := 0; h+2*r.half <= len(x); h += 2 * r.half {
		kernel.Rotate(x[h:][:r.half], x[h+r.half:][:r.half], cos, sin)
	}
}
