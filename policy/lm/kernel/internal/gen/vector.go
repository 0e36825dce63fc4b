package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build" //nolint:revive // avo programs read like assembly
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func add(a, b, dst Op) { VADDPS(a, b, dst) }

func dot(s *vectorSet) {
	s.begin("dot", "func(a, b []float32) float32", "returns the sum of products.")
	sums := []VecVirtual{s.zero(), s.zero(), s.zero(), s.zero()}
	s.eachVector([]string{"a", "b"}, nil, 4, func(u int, _ *tail, x []Register) []Register {
		VFMADD231PS(x[0], x[1], sums[u])
		return nil
	})
	add(sums[1], sums[0], sums[0])
	add(sums[3], sums[2], sums[2])
	add(sums[2], sums[0], sums[0])
	endWith(s.fold(sums[0], add, false))
}

func sumSquares(s *vectorSet) {
	s.begin("sumSquares", "func(x []float32) float64", "returns the sum of squares in float64.")
	sums := []VecVirtual{s.zero(), s.zero(), s.zero(), s.zero()}
	s.eachVector([]string{"x"}, nil, 2, func(u int, _ *tail, x []Register) []Register {
		v := x[0].(VecVirtual)
		low, high := s.reg(), s.reg()
		if s.wide {
			half := YMM()
			VEXTRACTF64X4(U8(1), v, half)
			VCVTPS2PD(v.AsY(), low)
			VCVTPS2PD(half, high)
		} else {
			half := XMM()
			VEXTRACTF128(U8(1), v, half)
			VCVTPS2PD(v.AsX(), low)
			VCVTPS2PD(half, high)
		}
		VFMADD231PD(low, low, sums[2*u])
		VFMADD231PD(high, high, sums[2*u+1])
		return nil
	})
	double := func(a, b, dst Op) { VADDPD(a, b, dst) }
	double(sums[1], sums[0], sums[0])
	double(sums[3], sums[2], sums[2])
	double(sums[2], sums[0], sums[0])
	endWith(s.fold(sums[0], double, true))
}

func greatest(s *vectorSet) {
	s.begin("max", "func(x []float32) float32", "returns the greatest element; NaNs are passed over.")
	lowest := s.register(s.constant(float32(math.Inf(-1))))
	var best []VecVirtual
	for range 4 {
		r := s.reg()
		VMOVAPS(lowest, r)
		best = append(best, r)
	}
	// Of two operands one of which is NaN, MAXPS gives the one named first here.
	larger := func(a, b, dst Op) { VMAXPS(a, b, dst) }
	s.eachVector([]string{"x"}, nil, 4, func(u int, t *tail, x []Register) []Register {
		larger(best[u], t.orElse(x[0], lowest), best[u])
		return nil
	})
	larger(best[1], best[0], best[0])
	larger(best[3], best[2], best[2])
	larger(best[2], best[0], best[0])
	endWith(s.fold(best[0], larger, false))
}

// linear writes axpy, scale, add, mul, mulAdd and rotate.
func linear(s *vectorSet) {
	s.begin("axpy", "func(alpha float32, x, y []float32)", "adds alpha·x to y.")
	alpha := s.register(s.scalar("alpha")())
	s.eachVector([]string{"x", "y"}, []string{"y"}, 2, func(_ int, _ *tail, x []Register) []Register {
		VFMADD231PS(x[0], alpha, x[1])
		return x[1:]
	})
	end()

	s.begin("scale", "func(alpha float32, x []float32)", "multiplies x by alpha.")
	alpha = s.register(s.scalar("alpha")())
	s.eachVector([]string{"x"}, []string{"x"}, 2, func(_ int, _ *tail, x []Register) []Register {
		VMULPS(x[0], alpha, x[0])
		return x
	})
	end()

	s.begin("add", "func(dst, x []float32)", "adds x to dst.")
	s.eachVector([]string{"dst", "x"}, []string{"dst"}, 2, func(_ int, _ *tail, x []Register) []Register {
		VADDPS(x[1], x[0], x[0])
		return x[:1]
	})
	end()

	s.begin("mul", "func(dst, x, y []float32, alpha float32)", "sets dst = alpha·x·y.")
	alpha = s.register(s.scalar("alpha")())
	s.eachVector([]string{"x", "y"}, []string{"dst"}, 2, func(_ int, _ *tail, x []Register) []Register {
		VMULPS(x[0], alpha, x[0])
		VMULPS(x[1], x[0], x[0])
		return x[:1]
	})
	end()

	s.begin("mulAdd", "func(dst, x, y []float32, alpha float32)", "adds alpha·x·y to dst.")
	alpha = s.register(s.scalar("alpha")())
	s.eachVector([]string{"x", "y", "dst"}, []string{"dst"}, 2, func(_ int, _ *tail, x []Register) []Register {
		VMULPS(x[0], alpha, x[0])
		VFMADD231PS(x[1], x[0], x[2])
		return x[2:]
	})
	end()

	s.begin("rotate", "func(x, y, cos, sin []float32)", "turns the pairs of x and y.")
	s.eachVector([]string{"x", "y", "cos", "sin"}, []string{"x", "y"}, 1, func(_ int, _ *tail, v []Register) []Register {
		x, y, cos, sin := v[0], v[1], v[2], v[3]
		turnedX, turnedY := s.reg(), s.reg()
		VMULPS(sin, y, turnedX)
		VFMSUB231PS(cos, x, turnedX)
		VMULPS(sin, x, turnedY)
		VFMADD231PS(cos, y, turnedY)
		return []Register{turnedX, turnedY}
	})
	end()
}

// roundPairs writes the rounding of float32 to pairs of bfloat16.
func roundPairs(s *vectorSet) {
	s.begin("roundPairs", "func(dst, src []float32)", "is goRoundPairs for panels of two vectors.")
	dst, src := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	n := Load(Param("dst").Len(), GP64())
	one, half, quiet := s.register(s.constantBits(1)), s.register(s.constantBits(0x7fff)), s.register(s.constantBits(1<<22))
	upper := s.register(s.constantBits(0xffff0000))
	round := func(m Mem) Register {
		x, y, bit := s.reg(), s.reg(), s.reg()
		VMOVUPS(m, x)
		VPSRLD(U8(16), x, bit)
		const unordered = 3
		if s.wide {
			nan := K()
			VPANDD(one, bit, bit)
			VPADDD(half, bit, bit)
			VPADDD(x, bit, y)
			VCMPPS(U8(unordered), x, x, nan)
			VPORD(quiet, x, nan, y)
			return y
		}
		nan := s.reg()
		VPAND(one, bit, bit)
		VPADDD(half, bit, bit)
		VPADDD(x, bit, y)
		VCMPPS(U8(unordered), x, x, nan)
		VPOR(quiet, x, x)
		VBLENDVPS(nan, x, y, y)
		return y
	}
	Label("loop")
	low, high := round(Mem{Base: src}), round(Mem{Base: src, Disp: s.bytes})
	VPSRLD(U8(16), low, low)
	if s.wide {
		VPANDD(upper, high, high)
		VPORD(low, high, high)
	} else {
		VPAND(upper, high, high)
		VPOR(low, high, high)
	}
	VMOVUPS(high, Mem{Base: dst})
	ADDQ(U32(2*s.bytes), src)
	ADDQ(U32(s.bytes), dst)
	SUBQ(U32(s.lanes()), n)
	JNE(LabelRef("loop"))
	end()
}

// exponential is exp in the way of goExp in package kernel.
type exponential struct {
	set                              *vectorSet
	clampLo, clampHi                 Op
	log2E, ln2High, ln2Low, exponent Op
	factors                          []Op // of the polynomial, highest power first
}

func newExponential(s *vectorSet) exponential {
	const ln2High = 0.693359375
	e := exponential{
		set:     s,
		clampLo: s.constant(-88),
		clampHi: s.constant(89),
		log2E:   s.constant(math.Log2E),
		ln2High: s.constant(ln2High),
		ln2Low:  s.constant(math.Ln2 - ln2High),
	}
	for _, x := range []float32{1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1, 1} {
		if len(e.factors) == 6 {
			e.factors = append(e.factors, e.factors[5])
			break
		}
		e.factors = append(e.factors, s.constant(x))
	}
	if !s.wide {
		e.exponent = s.constant(math.Float32frombits(127)) // the integer 127
	}
	return e
}

func (e exponential) of(x Register) Register {
	s := e.set
	r, n, y := s.reg(), s.reg(), s.reg()
	// NaN stays: MAXPS and MINPS give the operand named first here.
	VMAXPS(x, s.register(e.clampLo), r)
	VMINPS(r, s.register(e.clampHi), r)
	VMULPS(e.log2E, r, n)
	const nearest = 8
	if s.wide {
		VRNDSCALEPS(U8(nearest), n, n)
	} else {
		VROUNDPS(U8(nearest), n, n)
	}
	VFNMADD231PS(e.ln2High, n, r)
	VFNMADD231PS(e.ln2Low, n, r)
	VMOVUPS(e.factors[0], y)
	for _, factor := range e.factors[1:] {
		VFMADD213PS(factor, r, y)
	}
	if s.wide {
		VSCALEFPS(n, y, y)
		return y
	}
	// 2ⁿ in two factors: n may be 128, which one factor cannot hold.
	half := s.reg()
	VCVTPS2DQ(n, n)
	VPSRAD(U8(1), n, half)
	VPSUBD(half, n, n)
	for _, part := range []Register{half, n} {
		VPADDD(e.exponent, part, part)
		VPSLLD(U8(23), part, part)
		VMULPS(part, y, y)
	}
	return y
}

func expShiftSum(s *vectorSet) {
	s.begin("expShiftSum", "func(dst, src []float32, shift float32) float32", "sets dst = exp(src-shift) and returns its sum.")
	e := newExponential(s)
	lowest := s.constant(-87.33654)
	shift := s.register(s.scalar("shift")())
	sums := []VecVirtual{s.zero(), s.zero()}
	none := s.zero()
	const notLess = 0x15 // true for NaN
	s.eachVector([]string{"src"}, []string{"dst"}, 2, func(u int, t *tail, x []Register) []Register {
		d := s.reg()
		VSUBPS(shift, x[0], d)
		y := e.of(d)
		if s.wide {
			keep := K()
			VCMPPS(U8(notLess), lowest, d, keep)
			VMOVAPS_Z(y, keep, y)
		} else {
			keep := s.reg()
			VCMPPS(U8(notLess), lowest, d, keep)
			VANDPS(keep, y, y)
		}
		y = t.orElse(y, none)
		add(y, sums[u], sums[u])
		return []Register{y}
	})
	add(sums[1], sums[0], sums[0])
	endWith(s.fold(sums[0], add, false))
}

// sigmoid gives 1/(1+exp(-x)).
func (e exponential) sigmoid(x Register, one Op) Register {
	s := e.set
	minus := s.zero()
	VSUBPS(x, minus, minus)
	y := e.of(minus)
	VADDPS(one, y, y)
	VDIVPS(y, s.register(one), y)
	return y
}

func siluMul(s *vectorSet) {
	s.begin("siluMul", "func(dst, gate, up []float32)", "sets dst = gate·σ(gate)·up.")
	e := newExponential(s)
	one := e.factors[6]
	s.eachVector([]string{"gate", "up"}, []string{"dst"}, 1, func(_ int, _ *tail, x []Register) []Register {
		y := e.sigmoid(x[0], one)
		VMULPS(x[0], y, y)
		VMULPS(x[1], y, y)
		return []Register{y}
	})
	end()
}

func siluMulBackward(s *vectorSet) {
	s.begin("siluMulBackward", "func(dGate, dUp, dOut, gate, up []float32)", "is the gradient of siluMul.")
	e := newExponential(s)
	one := e.factors[6]
	s.eachVector([]string{"dOut", "gate", "up"}, []string{"dGate", "dUp"}, 1, func(_ int, _ *tail, x []Register) []Register {
		dOut, gate, up := x[0], x[1], x[2]
		y := e.sigmoid(gate, one)
		slope, dUp := s.reg(), s.reg()
		VSUBPS(y, s.register(one), slope)
		VFMADD213PS(one, gate, slope)
		VMULPS(y, slope, slope)
		VMULPS(dOut, up, up)
		VMULPS(up, slope, slope)
		VMULPS(gate, y, dUp)
		VMULPS(dOut, dUp, dUp)
		return []Register{slope, dUp}
	})
	end()
}

func adamW(s *vectorSet) {
	s.begin("adamW", "func(w, g, m, v []float32, lr, rest1, rest2, eps, decay, scale1, scale2, gradScale float32)",
		"makes a step of AdamW; see goAdamW.")
	lr, decay, eps := s.scalar("lr"), s.scalar("decay"), s.scalar("eps")
	rest1, rest2 := s.scalar("rest1"), s.scalar("rest2")
	scale1, scale2, gradScale := s.scalar("scale1"), s.scalar("scale2"), s.scalar("gradScale")
	s.eachVector([]string{"g", "m", "v", "w"}, []string{"m", "v", "w"}, 1, func(_ int, _ *tail, x []Register) []Register {
		g, m, v, w := x[0], x[1], x[2], x[3]
		change, step, root := s.reg(), s.reg(), s.reg()
		VMULPS(gradScale(), g, g)
		VSUBPS(m, g, change)
		VFMADD231PS(rest1(), change, m)
		VFMSUB213PS(v, g, g) // g² - v
		VFMADD231PS(rest2(), g, v)
		VMULPS(scale2(), v, root)
		VSQRTPS(root, root)
		VADDPS(eps(), root, root)
		VMULPS(scale1(), m, step)
		VDIVPS(root, step, step)
		VFMADD231PS(decay(), w, step)
		VFNMADD231PS(lr(), step, w)
		return []Register{m, v, w}
	})
	end()
}
