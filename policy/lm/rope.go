package lm

import "math"

// rope holds the cosines and sines of rotary position embedding (Su et al.
// 2021, arXiv 2104.09864) in the half-split layout of Hugging Face's Llama:
// dimension i is rotated with dimension i + dim/2.
type rope struct {
	half     int
	cos, sin []float32 // [positions, half]
}

func newRope(a Architecture) rope {
	half := a.HeadDim / 2
	r := rope{half: half, cos: make([]float32, a.ContextLength*half), sin: make([]float32, a.ContextLength*half)}
	for pos := range a.ContextLength {
		for i := range half {
			angle := float64(pos) * math.Pow(a.RopeTheta, -2*float64(i)/float64(a.HeadDim))
			r.cos[pos*half+i] = float32(math.Cos(angle))
			r.sin[pos*half+i] = float32(math.Sin(angle))
		}
	}
	return r
}

// rotate turns the heads that lie one after another in x by the angles of pos;
// sign is 1 forward and -1 for the gradient, the rotation's transpose.
func (r rope) rotate(x []float32, pos int, sign float32) {
	cos := r.cos[pos*r.half:][:r.half]
	sin := r.sin[pos*r.half:][:r.half]
	for h := 0; h+2*r.half <= len(x); h += 2 * r.half {
		a := x[h:][:r.half]
		b := x[h+r.half:][:r.half]
		for i, c := range cos {
			s := sign * sin[i]
			ai, bi := a[i], b[i]
			a[i] = ai*c - bi*s
			b[i] = bi*c + ai*s
		}
	}
}
