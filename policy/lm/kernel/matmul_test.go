package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// eachISA runs a test once for every implementation this processor has.
func eachISA(t *testing.T, test func(t *testing.T)) {
	for _, isa := range available() {
		t.Run(isa.name, func(t *testing.T) {
			useISA(t, isa)
			test(t)
		})
	}
}

func useISA(t testing.TB, isa *instructionSet) {
	before := active
	active = isa
	t.Cleanup(func() { active = before })
}

func newTestPool(t testing.TB, n int) *Pool {
	p := NewPool(n)
	t.Cleanup(p.Close)
	return p
}

func random(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// matrix is a random matrix with a gap of NaNs between its rows, which no
// product may read or write.
type matrix struct {
	x          []float32
	rows, cols int
	ld         int
}

func randomMatrix(rng *rand.Rand, rows, cols int) matrix {
	ld := cols + rng.IntN(5)
	x := random(rng, max(0, rows*ld))
	for i := range x {
		if i%max(ld, 1) >= cols {
			x[i] = float32(math.NaN())
		}
	}
	if rows > 0 {
		x = x[:(rows-1)*ld+cols]
	}
	return matrix{x, rows, cols, ld}
}

func (a matrix) at(i, j int) float32 { return a.x[i*a.ld+j] }

func (a matrix) clone() matrix {
	a.x = append([]float32(nil), a.x...)
	return a
}

func (a matrix) transpose() matrix {
	t := matrix{make([]float32, a.rows*a.cols), a.cols, a.rows, a.rows}
	for i := range a.rows {
		for j := range a.cols {
			t.x[j*t.ld+i] = a.at(i, j)
		}
	}
	return t
}

// products are the four ways to compute C = A·B of A m×k and B k×n.
var products = []struct {
	name string
	run  func(p *Pool, c, a, b matrix, acc bool)
}{
	{"MatMul", func(p *Pool, c, a, b matrix, acc bool) {
		p.MatMul(c.x, c.ld, a.x, a.ld, b.x, b.ld, c.rows, c.cols, a.cols, acc)
	}},
	{"MatMulTransB", func(p *Pool, c, a, b matrix, acc bool) {
		b = b.transpose()
		p.MatMulTransB(c.x, c.ld, a.x, a.ld, b.x, b.ld, c.rows, c.cols, a.cols, acc)
	}},
	{"MatMulTransA", func(p *Pool, c, a, b matrix, acc bool) {
		a = a.transpose()
		p.MatMulTransA(c.x, c.ld, a.x, a.ld, b.x, b.ld, c.rows, c.cols, a.rows, acc)
	}},
	{"MatMulPacked", func(p *Pool, c, a, b matrix, acc bool) {
		b = b.transpose()
		w := Pack(make([]float32, len(b.x)), b.ld, b.rows, b.cols, Float32)
		w.Repack(b.x, b.ld)
		p.MatMulPacked(c.x, c.ld, a.x, a.ld, w, c.rows, acc)
	}},
}

// checkProducts compares all products of one shape with a float64 reference,
// and with one another bit for bit.
func checkProducts(t *testing.T, p *Pool, rng *rand.Rand, m, n, k int, acc bool) {
	t.Helper()
	a, b, c := randomMatrix(rng, m, k), randomMatrix(rng, k, n), randomMatrix(rng, m, n)
	var first matrix
	for index, product := range products {
		got := c.clone()
		product.run(p, got, a, b, acc)
		if index == 0 {
			first = got
			for i := range m {
				for j := range n {
					want, size := 0.0, 0.0
					if acc {
						want, size = float64(c.at(i, j)), math.Abs(float64(c.at(i, j)))
					}
					for q := range k {
						x := float64(a.at(i, q)) * float64(b.at(q, j))
						want += x
						size += math.Abs(x)
					}
					if !(math.Abs(float64(got.at(i, j))-want) <= size*float64(k+1)*0x1p-23) {
						t.Fatalf("%s m=%d n=%d k=%d acc=%v: c[%d,%d] = %g, want %g", product.name, m, n, k, acc, i, j, got.at(i, j), want)
					}
				}
			}
		}
		for i, x := range got.x {
			if math.Float32bits(x) != math.Float32bits(first.x[i]) {
				t.Fatalf("m=%d n=%d k=%d acc=%v: element %d is %g by %s, %g by MatMul", m, n, k, acc, i, x, product.name, first.x[i])
			}
		}
	}
}

func TestProducts(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		pool := newTestPool(t, 3)
		rng := rand.New(rand.NewPCG(1, 2))
		sizes := []int{0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 97, 100, 129, 200}
		for range 120 {
			pick := func() int { return sizes[rng.IntN(len(sizes))] }
			checkProducts(t, pool, rng, pick(), pick(), pick(), rng.IntN(2) == 0)
		}
		for _, shape := range [][3]int{{1, 352, 800}, {300, 130, 513}, {13, 4097, 3}, {2, 4200, 400}, {200, 100, 1030}, {8200, 260, 5}} {
			checkProducts(t, pool, rng, shape[0], shape[1], shape[2], true)
			checkProducts(t, nil, rng, shape[0], shape[1], shape[2], false)
		}
	})
}

func FuzzProducts(f *testing.F) {
	f.Add(uint64(1), uint16(13), uint16(33), uint16(300), true)
	f.Add(uint64(2), uint16(1), uint16(130), uint16(0), false)
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k uint16, acc bool) {
		rng := rand.New(rand.NewPCG(seed, 0))
		for _, isa := range available() {
			useISA(t, isa)
			checkProducts(t, nil, rng, int(m%150), int(n%300), int(k%600), acc)
		}
	})
}

// An element of a product must be the same, bit for bit, whatever surrounds it:
// this is what makes log-probabilities independent of the batch.
func TestProductsAreBatchInvariant(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, k := range []int{1, 32, 100, 352, 1000} {
			const m, n = 205, 300
			a, b := randomMatrix(rng, m, k), randomMatrix(rng, k, n)
			start := randomMatrix(rng, m, n)
			for _, acc := range []bool{false, true} {
				whole := start.clone()
				products[0].run(newTestPool(t, 2), whole, a, b, acc)
				for range 30 {
					i0, j0 := rng.IntN(m), rng.IntN(n)
					rows, cols := 1+rng.IntN(min(m-i0, 40)), 1+rng.IntN(n-j0)
					part := start.clone()
					part = matrix{part.x[i0*part.ld+j0:], rows, cols, part.ld}
					partA := matrix{a.x[i0*a.ld:], rows, k, a.ld}
					partB := matrix{b.x[j0:], k, cols, b.ld}
					product := products[rng.IntN(len(products))]
					product.run(newTestPool(t, 1+rng.IntN(3)), part, partA, partB, acc)
					for i := range rows {
						for j := range cols {
							if got, want := part.at(i, j), whole.at(i0+i, j0+j); got != want {
								t.Fatalf("%s k=%d acc=%v: element %d,%d is %x in a part of %d×%d, %x in the whole",
									product.name, k, acc, i0+i, j0+j, got, rows, cols, want)
							}
						}
					}
				}
			}
		}
	})
}

// The vector sets compute the same chains of fused multiply-adds.
func TestVectorSetsAgree(t *testing.T) {
	var first matrix
	var name string
	for _, isa := range available() {
		if isa.name == "go" {
			continue
		}
		useISA(t, isa)
		rng := rand.New(rand.NewPCG(5, 6))
		a, b, c := randomMatrix(rng, 50, 300), randomMatrix(rng, 300, 77), randomMatrix(rng, 50, 77)
		products[0].run(nil, c, a, b, true)
		if name == "" {
			first, name = c, isa.name
			continue
		}
		for i := range c.x {
			if math.Float32bits(c.x[i]) != math.Float32bits(first.x[i]) {
				t.Fatalf("element %d: %x with %s, %x with %s", i, c.x[i], isa.name, first.x[i], name)
			}
		}
	}
}

func TestShortSlicesPanic(t *testing.T) {
	x := make([]float32, 11)
	for name, call := range map[string]func(){
		"c": func() { NewPool(1).MatMul(x, 4, make([]float32, 12), 4, make([]float32, 16), 4, 3, 4, 4, false) },
		"b": func() { Pack(x, 4, 3, 4, Float32) },
		"ld": func() {
			NewPool(1).MatMul(make([]float32, 12), 3, make([]float32, 12), 4, make([]float32, 16), 4, 3, 4, 4, false)
		},
		"shape": func() { NewPool(1).MatMul(x, 1, x, 1, x, 1, -1, 1, 1, false) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

func TestProductsDoNotAllocate(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		const m, n, k = 70, 200, 100
		a, b, c := random(rng, m*k), random(rng, n*k), random(rng, m*n)
		w := Pack(b, k, n, k, BFloat16)
		for _, pool := range []*Pool{nil, newTestPool(t, 1), newTestPool(t, 2)} {
			allocs := testing.AllocsPerRun(10, func() {
				pool.MatMul(c, n, a, k, b, n, m, n, k, false)
				pool.MatMulTransB(c, n, a, k, b, k, m, n, k, false)
				pool.MatMulTransA(c, n, a, m, b, n, m, n, k, false)
				pool.MatMulPacked(c, n, a, k, w, m, true)
			})
			if allocs != 0 {
				t.Errorf("pool of %d: %v allocations", pool.Size(), allocs)
			}
		}
	})
}

// BenchmarkProduct reports the speed of the shapes a transformer uses.
func BenchmarkProduct(b *testing.B) {
	shapes := []struct {
		product int
		m, n, k int
	}{
		{1, 512, 512, 512}, {1, 4096, 352, 128}, {1, 4096, 128, 352}, {0, 4096, 128, 352},
		{2, 352, 128, 4096}, {2, 512, 512, 4096}, {1, 4096, 1024, 1024}, {1, 128, 128, 32}, {0, 128, 32, 128},
		{0, 1, 32, 128},
		{3, 1, 352, 128}, {3, 1, 512, 512}, {3, 2, 512, 512}, {3, 4, 512, 512}, {3, 8, 512, 512}, {3, 16, 512, 512}, {3, 64, 512, 512},
	}
	rng := rand.New(rand.NewPCG(9, 10))
	for _, isa := range available() {
		for _, s := range shapes {
			for _, workers := range []int{1, 2} {
				name := fmt.Sprintf("%s/%s/m=%d,n=%d,k=%d/workers=%d", isa.name, products[s.product].name, s.m, s.n, s.k, workers)
				b.Run(name, func(b *testing.B) {
					useISA(b, isa)
					pool := newTestPool(b, workers)
					x, y, c := random(rng, s.m*s.k), random(rng, s.n*s.k), random(rng, s.m*s.n)
					var w *Packed
					if s.product == 3 {
						w = Pack(y, s.k, s.n, s.k, Float32)
					}
					for b.Loop() {
						switch s.product {
						case 0:
							pool.MatMul(c, s.n, x, s.k, y, s.n, s.m, s.n, s.k, false)
						case 1:
							pool.MatMulTransB(c, s.n, x, s.k, y, s.k, s.m, s.n, s.k, false)
						case 2:
							pool.MatMulTransA(c, s.n, x, s.m, y, s.n, s.m, s.n, s.k, false)
						case 3:
							pool.MatMulPacked(c, s.n, x, s.k, w, s.m, false)
						}
					}
					flops := 2 * float64(s.m) * float64(s.n) * float64(s.k) * float64(b.N)
					b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}
