package kernel

import "math"

const goWidth = 4 // columns of a panel

// portable is the implementation in plain Go. The products convert to float32
// before they add: the conversion forbids the compiler to fuse the two, so
// that results are the same on every architecture.
func portable() *instructionSet {
	return &instructionSet{
		name:     "go",
		tileRows: 1,
		tileCols: goWidth,
		tiles: [formats][]tileShape{
			Float32:  {{}, {goTile, goTile, 1}},
			BFloat16: {{}, {goTileBFloat16, goTileBFloat16, 1}},
		},
		transpose:       goTranspose,
		packRows:        goPackRows,
		roundPairs:      func(dst, src []float32) { goRoundPairs(dst, src, goWidth) },
		dot:             goDot,
		axpy:            goAxpy,
		scale:           goScale,
		add:             goAdd,
		mul:             goMul,
		mulAdd:          goMulAdd,
		rotate:          goRotate,
		sumSquares:      goSumSquares,
		max:             goMax,
		expShiftSum:     goExpShiftSum,
		siluMul:         goSiluMul,
		siluMulBackward: goSiluMulBackward,
		adamW:           goAdamW,
	}
}

// goTile is the micro-kernel of one row and one panel. More accumulators would
// not stay in registers.
func goTile(c []float32, _ int, a []float32, _, stepA int, b []float32, stepB, _, k int, load bool) {
	tile := (*[goWidth]float32)(c)
	var c0, c1, c2, c3 float32
	if load {
		c0, c1, c2, c3 = tile[0], tile[1], tile[2], tile[3]
	}
	i, j := 0, 0
	for range k {
		x, row := a[i], (*[goWidth]float32)(b[j:])
		i, j = i+stepA, j+stepB
		c0 += float32(x * row[0])
		c1 += float32(x * row[1])
		c2 += float32(x * row[2])
		c3 += float32(x * row[3])
	}
	*tile = [goWidth]float32{c0, c1, c2, c3}
}

// goTileBFloat16 is goTile for a panel of bfloat16.
func goTileBFloat16(c []float32, _ int, a []float32, _, stepA int, b []float32, stepB, _, k int, load bool) {
	tile := (*[goWidth]float32)(c)
	var c0, c1, c2, c3 float32
	if load {
		c0, c1, c2, c3 = tile[0], tile[1], tile[2], tile[3]
	}
	i, j := 0, 0
	for range k {
		x, row := a[i], (*[goWidth / 2]float32)(b[j:])
		i, j = i+stepA, j+stepB
		b0, b2 := splitPair(row[0])
		b1, b3 := splitPair(row[1])
		c0 += float32(x * b0)
		c1 += float32(x * b1)
		c2 += float32(x * b2)
		c3 += float32(x * b3)
	}
	*tile = [goWidth]float32{c0, c1, c2, c3}
}

// splitPair gives the two bfloat16 of a word, see goRoundPairs.
func splitPair(word float32) (low, high float32) {
	bits := math.Float32bits(word)
	return math.Float32frombits(bits << 16), math.Float32frombits(bits &^ 0xffff)
}

func goTranspose(dst, src []float32, ld, rows, k int) {
	for i := range rows {
		for p, x := range src[i*ld : i*ld+k] {
			dst[p*goWidth+i] = x
		}
	}
}

func goPackRows(dst, src []float32, ld, k int) {
	for p := range k {
		copy(dst[p*goWidth:][:goWidth], src[p*ld:])
	}
}

func goDot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += float32(a[0] * b[0])
		s1 += float32(a[1] * b[1])
		s2 += float32(a[2] * b[2])
		s3 += float32(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += float32(x * b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

func goAxpy(alpha float32, x, y []float32) {
	for i, v := range x {
		y[i] += float32(alpha * v)
	}
}

func goScale(alpha float32, x []float32) {
	for i := range x {
		x[i] *= alpha
	}
}

func goAdd(dst, x []float32) {
	for i, v := range x {
		dst[i] += v
	}
}

func goMul(dst, x, y []float32, alpha float32) {
	for i, v := range x {
		dst[i] = alpha * v * y[i]
	}
}

func goMulAdd(dst, x, y []float32, alpha float32) {
	for i, v := range x {
		dst[i] += float32(alpha * v * y[i])
	}
}

func goRotate(x, y, cos, sin []float32) {
	for i, c := range cos {
		s, u, v := sin[i], x[i], y[i]
		x[i] = float32(u*c) - float32(v*s)
		y[i] = float32(v*c) + float32(u*s)
	}
}

func goSumSquares(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(float64(v) * float64(v))
	}
	return sum
}

func goMax(x []float32) float32 {
	greatest := float32(math.Inf(-1))
	for _, v := range x {
		if v > greatest {
			greatest = v
		}
	}
	return greatest
}

// The exponential: x = n·ln 2 + r with |r| ≤ ln 2 / 2, then the Taylor
// polynomial of degree 6 of exp(r), whose relative error is below 2e-7, times
// 2ⁿ. ln 2 is split in two so that n·ln2High is exact.
const (
	expLowest  = -87.33654 // exp of less is below the smallest normal number
	expClampLo = -88
	expClampHi = 89 // exp of it is beyond the greatest number
	log2E      = 1.4426950408889634
	ln2High    = 0.693359375
	ln2Low     = math.Ln2 - ln2High
)

func goExp(x float32) float32 {
	x = min(max(x, expClampLo), expClampHi) // NaN stays NaN
	n := float32(math.RoundToEven(float64(float32(x * log2E))))
	r := x - float32(n*ln2High)
	r -= float32(n * ln2Low)
	y := float32(1.0 / 720)
	y = float32(y*r) + 1.0/120
	y = float32(y*r) + 1.0/24
	y = float32(y*r) + 1.0/6
	y = float32(y*r) + 1.0/2
	y = float32(y*r) + 1
	y = float32(y*r) + 1
	// 2ⁿ in two factors: n may be 128, which one factor cannot hold.
	half := int32(n) >> 1
	rest := int32(n) - half
	return y * math.Float32frombits(uint32(half+127)<<23) * math.Float32frombits(uint32(rest+127)<<23)
}

func goExpShiftSum(dst, src []float32, shift float32) float32 {
	var sum float32
	for i, x := range src {
		x -= shift
		if x < expLowest {
			dst[i] = 0
			continue
		}
		e := goExp(x)
		dst[i] = e
		sum += e
	}
	return sum
}

func goSiluMul(dst, gate, up []float32) {
	for i, g := range gate {
		s := 1 / (1 + goExp(-g))
		dst[i] = g * s * up[i]
	}
}

func goSiluMulBackward(dGate, dUp, dOut, gate, up []float32) {
	for i, g := range gate {
		d, u := dOut[i], up[i]
		s := 1 / (1 + goExp(-g))
		slope := s * (1 + float32(g*(1-s)))
		dGate[i] = d * u * slope
		dUp[i] = d * (g * s)
	}
}

// goAdamW takes rest = 1-β, and scale = 1/correction.
func goAdamW(w, g, m, v []float32, lr, rest1, rest2, eps, decay, scale1, scale2, gradScale float32) {
	for i, x := range w {
		grad := float32(g[i] * gradScale)
		mean := m[i] + float32(rest1*(grad-m[i]))
		square := v[i] + float32(rest2*(float32(grad*grad)-v[i]))
		m[i], v[i] = mean, square
		root := float32(math.Sqrt(float64(square * scale2)))
		step := float32(mean*scale1)/(root+eps) + float32(decay*x)
		w[i] = x - float32(lr*step)
	}
}
