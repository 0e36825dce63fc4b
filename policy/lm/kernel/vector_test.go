package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var lengths = []int{1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130, 352, 1000}

func near(t *testing.T, what string, got float32, want, size, tolerance float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= size*tolerance) {
		t.Fatalf("%s = %g, want %g", what, got, want)
	}
}

func TestSums(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths {
			a, b := random(rng, n), random(rng, n)
			var dot, size, squares float64
			for i := range a {
				x := float64(a[i]) * float64(b[i])
				dot += x
				size += math.Abs(x)
				squares += float64(a[i]) * float64(a[i])
			}
			near(t, "Dot", Dot(a, b), dot, size, 1e-5)
			if got := SumSquares(a); math.Abs(got-squares) > squares*1e-12 {
				t.Fatalf("SumSquares = %g, want %g", got, squares)
			}
			if got := Max(a); got != slices.Max(a) {
				t.Fatalf("Max = %g, want %g", got, slices.Max(a))
			}
			for i := range a {
				a[i] = -abs(a[i]) - 1 // the greatest is below 0, the value of missing lanes
			}
			if got := Max(a); got != slices.Max(a) {
				t.Fatalf("Max = %g, want %g", got, slices.Max(a))
			}
		}
		if Dot(nil, nil) != 0 || SumSquares(nil) != 0 || !math.IsInf(float64(Max(nil)), -1) || ExpShiftSum(nil, nil, 1) != 0 {
			t.Fatal("sums of nothing")
		}
		if got := Max([]float32{float32(math.NaN()), -3, float32(math.NaN()), -2}); got != -2 {
			t.Fatalf("Max with NaNs = %g", got)
		}
	})
}

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

// guarded gives a copy of x that is followed by NaNs, and a check that they stay.
func guarded(t *testing.T, x []float32) (copied []float32, check func()) {
	long := append(slices.Clone(x), make([]float32, 16)...)
	tail := long[len(x):]
	for i := range tail {
		tail[i] = float32(math.NaN())
	}
	return long[:len(x)], func() {
		t.Helper()
		for _, v := range tail {
			if v == v {
				t.Fatal("written beyond the end")
			}
		}
	}
}

func TestLinear(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		for _, n := range lengths {
			x, y := random(rng, n), random(rng, n)
			axpy, check1 := guarded(t, y)
			add, check2 := guarded(t, y)
			scale, check3 := guarded(t, y)
			Axpy(0.7, x, axpy)
			Add(add, x)
			Scale(-1.3, scale)
			mul, check4 := guarded(t, y)
			mulAdd, check5 := guarded(t, y)
			left, check6 := guarded(t, x)
			right, check7 := guarded(t, y)
			cos, sin := random(rng, n), random(rng, n)
			Mul(mul, x, mul, 0.3)
			MulAdd(mulAdd, x, cos, 0.3)
			Rotate(left, right, cos, sin)
			for _, check := range []func(){check1, check2, check3, check4, check5, check6, check7} {
				check()
			}
			for i := range n {
				u, v, c, s := float64(x[i]), float64(y[i]), float64(cos[i]), float64(sin[i])
				near(t, "Mul", mul[i], 0.3*u*v, math.Abs(u*v), 1e-6)
				near(t, "MulAdd", mulAdd[i], v+0.3*u*c, math.Abs(v)+math.Abs(u*c), 1e-6)
				near(t, "Rotate", left[i], u*c-v*s, math.Abs(u*c)+math.Abs(v*s), 1e-6)
				near(t, "Rotate", right[i], v*c+u*s, math.Abs(v*c)+math.Abs(u*s), 1e-6)
				near(t, "Axpy", axpy[i], float64(y[i])+float64(float32(0.7))*float64(x[i]), math.Abs(float64(x[i]))+math.Abs(float64(y[i])), 1e-6)
				if add[i] != x[i]+y[i] || scale[i] != y[i]*-1.3 {
					t.Fatalf("Add or Scale wrong at %d of %d", i, n)
				}
			}
		}
	})
}

func TestExpShiftSum(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		// Accuracy all over the range of float32 results.
		var src []float32
		for x := -87.3; x < 88.7; x += 0.0037 {
			src = append(src, float32(x))
		}
		dst, check := guarded(t, src)
		ExpShiftSum(dst, src, 0)
		check()
		worst := 0.0
		for i, x := range src {
			want := math.Exp(float64(x))
			worst = max(worst, math.Abs(float64(dst[i])-want)/want)
		}
		t.Logf("worst relative error %.2g", worst)
		if !(worst <= 2e-6) {
			t.Errorf("relative error %g", worst)
		}

		inf, nan := float32(math.Inf(1)), float32(math.NaN())
		special := []float32{-inf, -1e30, -200, -88, 0, 89, 1e30, inf, nan}
		ExpShiftSum(special, special, 0)
		for i, want := range []float32{0, 0, 0, 0, 1, inf, inf, inf} {
			if special[i] != want {
				t.Errorf("special value %d: %g, want %g", i, special[i], want)
			}
		}
		if special[8] == special[8] {
			t.Error("exp(NaN) is a number")
		}

		rng := rand.New(rand.NewPCG(3, 3))
		for _, n := range lengths {
			src := random(rng, n)
			shift := Max(src)
			dst := make([]float32, n)
			got := ExpShiftSum(dst, src, shift)
			sum := 0.0
			for i := range src {
				want := math.Exp(float64(src[i] - shift))
				near(t, "exp", dst[i], want, want, 2e-6)
				sum += want
			}
			near(t, "sum", got, sum, sum, 5e-6)
		}
	})
}

func TestSiluMul(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(4, 4))
		for _, n := range lengths {
			gate, up, dOut := random(rng, n), random(rng, n), random(rng, n)
			for i := range gate {
				gate[i] *= 8
			}
			dst, check1 := guarded(t, gate) // dst may be gate
			dGate, check2 := guarded(t, dOut)
			dUp, check3 := guarded(t, up)
			SiluMul(dst, dst, up)
			SiluMulBackward(dGate, dUp, dGate, gate, dUp)
			check1()
			check2()
			check3()
			for i := range n {
				g, u, d := float64(gate[i]), float64(up[i]), float64(dOut[i])
				s := 1 / (1 + math.Exp(-g))
				near(t, "SiluMul", dst[i], g*s*u, math.Abs(g*s*u), 3e-6)
				near(t, "dGate", dGate[i], d*u*s*(1+g*(1-s)), math.Abs(d*u)*s*(1+math.Abs(g)*(1-s)), 3e-6)
				near(t, "dUp", dUp[i], d*g*s, math.Abs(d*g*s), 3e-6)
			}
		}
		far := []float32{-1e30, -300, 300, 1e30}
		got := make([]float32, 4)
		SiluMul(got, far, []float32{1, 1, 1, 1})
		for i, want := range []float32{0, 0, 300, 1e30} {
			if got[i] != want {
				t.Errorf("SiluMul of %g = %g", far[i], got[i])
			}
		}
	})
}

func TestArgMax(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		nan, inf := float32(math.NaN()), float32(math.Inf(-1))
		for _, test := range []struct {
			x    []float32
			want int
		}{
			{nil, -1}, {[]float32{nan}, -1}, {[]float32{inf}, 0}, {[]float32{nan, inf}, 1},
			{[]float32{nan, 2, 3, nan, 3}, 2}, {[]float32{0, -1}, 0},
		} {
			if got := ArgMax(test.x); got != test.want {
				t.Errorf("ArgMax(%v) = %d, want %d", test.x, got, test.want)
			}
		}
		x := random(rand.New(rand.NewPCG(10, 10)), 1500)
		for _, at := range []int{1499, 1024, 700, 0} {
			x[at] = 9 // the first of equal ones
			if got := ArgMax(x); got != at {
				t.Errorf("ArgMax = %d, want %d", got, at)
			}
		}
	})
}

func TestAdamW(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 5))
		for _, n := range lengths {
			w0, g := random(rng, n), random(rng, n)
			w, check1 := guarded(t, w0)
			m, check2 := guarded(t, make([]float32, n))
			v, check3 := guarded(t, make([]float32, n))
			weight := make([]float64, n)
			mean, square := make([]float64, n), make([]float64, n)
			for i := range w0 {
				weight[i] = float64(w0[i])
			}
			const lr, beta1, beta2, eps, decay, scale = 0.01, 0.9, 0.95, 1e-8, 0.1, 0.5
			for step := 1; step <= 5; step++ {
				c1, c2 := 1-math.Pow(beta1, float64(step)), 1-math.Pow(beta2, float64(step))
				AdamW(w, g, m, v, AdamWParams{lr, beta1, beta2, eps, decay, float32(c1), float32(c2), scale})
				for i := range weight {
					grad := scale * float64(g[i])
					mean[i] = beta1*mean[i] + (1-beta1)*grad
					square[i] = beta2*square[i] + (1-beta2)*grad*grad
					weight[i] -= lr * (mean[i]/c1/(math.Sqrt(square[i]/c2)+eps) + decay*weight[i])
				}
				check1()
				check2()
				check3()
				for i := range weight {
					near(t, "w", w[i], weight[i], math.Abs(weight[i])+lr, 4e-6)
					near(t, "m", m[i], mean[i], 1, 1e-6)
					near(t, "v", v[i], square[i], square[i], 4e-6)
				}
				for i := range g {
					g[i] = float32(rng.NormFloat64())
				}
			}
		}
	})
}

// The place of an element in a vector must not matter: a batch is longer than
// a sequence of it.
func TestElementwiseIsPositionInvariant(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(6, 6))
		const n = 100
		x, y, z := random(rng, n), random(rng, n), random(rng, n)
		run := func(i, j int) [][]float32 {
			s, a := make([]float32, j-i), slices.Clone(z[i:j])
			dg, du, e := make([]float32, j-i), make([]float32, j-i), make([]float32, j-i)
			SiluMul(s, x[i:j], y[i:j])
			SiluMulBackward(dg, du, z[i:j], x[i:j], y[i:j])
			Axpy(0.3, x[i:j], a)
			ExpShiftSum(e, x[i:j], 1.5)
			mul, mulAdd := make([]float32, j-i), slices.Clone(z[i:j])
			Mul(mul, x[i:j], y[i:j], 0.7)
			MulAdd(mulAdd, x[i:j], y[i:j], 0.7)
			left, right := slices.Clone(y[i:j]), slices.Clone(z[i:j])
			Rotate(left, right, x[i:j], y[i:j])
			w, m, v := slices.Clone(z[i:j]), make([]float32, j-i), make([]float32, j-i)
			AdamW(w, x[i:j], m, v, AdamWParams{0.01, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 0.7})
			return [][]float32{s, dg, du, a, e, mul, mulAdd, left, right, w, m, v}
		}
		whole := run(0, n)
		for range 100 {
			i := rng.IntN(n)
			j := i + 1 + rng.IntN(n-i)
			for f, part := range run(i, j) {
				if !slices.Equal(part, whole[f][i:j]) {
					t.Fatalf("function %d: elements %d..%d differ from the whole", f, i, j)
				}
			}
		}
	})
}

func TestLengthsMustAgree(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Dot(make([]float32, 3), make([]float32, 4))
}

func BenchmarkVector(b *testing.B) {
	const n = 4096
	rng := rand.New(rand.NewPCG(7, 7))
	x, y, z, u, v := random(rng, n), random(rng, n), random(rng, n), random(rng, n), make([]float32, n)
	params := AdamWParams{1e-3, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1}
	for _, isa := range available() {
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"Dot", func() { Dot(x, y) }},
			{"Axpy", func() { Axpy(1e-9, x, y) }},
			{"Add", func() { Add(y, v) }},
			{"Scale", func() { Scale(1, y) }},
			{"Mul", func() { Mul(v, x, y, 0.7) }},
			{"MulAdd", func() { MulAdd(v, x, y, 1e-9) }},
			{"Rotate", func() { Rotate(v, u, x, x) }},
			{"SumSquares", func() { SumSquares(x) }},
			{"Max", func() { Max(x) }},
			{"ExpShiftSum", func() { ExpShiftSum(z, x, 3) }},
			{"SiluMul", func() { SiluMul(z, x, y) }},
			{"SiluMulBackward", func() { SiluMulBackward(z, u, y, x, y) }},
			{"ArgMax", func() { ArgMax(x) }},
			{"AdamW", func() { AdamW(z, x, u, v, params) }},
		} {
			b.Run(isa.name+"/"+f.name, func(b *testing.B) {
				useISA(b, isa)
				for b.Loop() {
					f.run()
				}
				b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e9, "Gelem/s")
			})
		}
	}
}
