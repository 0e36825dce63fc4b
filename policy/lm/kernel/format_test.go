package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// rounded gives the matrix that a format holds in place of b.
func rounded(b matrix, format Format) matrix {
	b = b.clone()
	if format == BFloat16 {
		for i, x := range b.x {
			b.x[i] = math.Float32frombits(roundBFloat16(x))
		}
	}
	return b
}

// checkFormats compares products of a matrix packed in every format with the
// float32 products of the matrix it was rounded to, bit for bit. Those are
// compared with float64 by checkProducts.
func checkFormats(t *testing.T, p *Pool, rng *rand.Rand, m, n, k int, acc bool) {
	t.Helper()
	a, b, c := randomMatrix(rng, m, k), randomMatrix(rng, n, k), randomMatrix(rng, m, n)
	for format := range formats {
		want, got := c.clone(), c.clone()
		r := rounded(b, format)
		p.MatMulTransB(want.x, want.ld, a.x, a.ld, r.x, r.ld, m, n, k, acc)
		p.MatMulPacked(got.x, got.ld, a.x, a.ld, Pack(b.x, b.ld, n, k, format), m, acc)
		for i, x := range got.x {
			if math.Float32bits(x) != math.Float32bits(want.x[i]) {
				t.Fatalf("%v m=%d n=%d k=%d acc=%v: element %d is %g, want %g", format, m, n, k, acc, i, x, want.x[i])
			}
		}
	}
}

func TestFormats(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(11, 12))
		pool := newTestPool(t, 2)
		for m := 1; m <= 26; m++ {
			for _, nk := range [][2]int{{1, 1}, {5, 3}, {33, 65}, {130, 31}, {200, 450}} {
				checkFormats(t, pool, rng, m, nk[0], nk[1], m%2 == 0)
			}
		}
		checkFormats(t, pool, rng, 1, 4200, 400, false)
		checkFormats(t, pool, rng, 120, 300, 800, true)
	})
}

func FuzzFormats(f *testing.F) {
	f.Add(uint64(1), uint16(13), uint16(33), uint16(300), true)
	f.Add(uint64(2), uint16(1), uint16(130), uint16(0), false)
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k uint16, acc bool) {
		rng := rand.New(rand.NewPCG(seed, 0))
		for _, isa := range available() {
			useISA(t, isa)
			checkFormats(t, nil, rng, int(m%150), int(n%300), int(k%600), acc)
		}
	})
}

func TestRoundBFloat16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, test := range []struct{ x, want float32 }{
		{0, 0}, {1, 1}, {-1, -1}, {inf, inf}, {-inf, -inf},
		{1 + 0x1p-8, 1},                   // a tie goes to even: down
		{1 + 0x1p-7 + 0x1p-8, 1 + 0x1p-6}, // and up
		{1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-7},
		{math.MaxFloat32, inf},
		{0x1p-133, 0x1p-133}, // the smallest
		{0x1p-135, 0},
	} {
		if got := math.Float32frombits(roundBFloat16(test.x)); got != test.want {
			t.Errorf("%x becomes %x, want %x", test.x, got, test.want)
		}
	}
	for _, bits := range []uint32{0x7f800001, 0xffffffff, 0x7fc00000} {
		if x := math.Float32frombits(roundBFloat16(math.Float32frombits(bits))); x == x {
			t.Errorf("NaN %x becomes %g", bits, x)
		}
	}
}

// All implementations round alike.
func TestRoundPairs(t *testing.T) {
	eachISA(t, func(t *testing.T) {
		width := active.tileCols
		rng := rand.New(rand.NewPCG(13, 14))
		src := make([]float32, 40*width)
		for i := range src {
			src[i] = math.Float32frombits(rng.Uint32()) // NaNs and infinities too
			if i%3 == 0 {
				src[i] = math.Float32frombits(rng.Uint32()&^0xffff | 0x8000) // a tie
			}
		}
		got, want := make([]float32, len(src)/2), make([]float32, len(src)/2)
		active.roundPairs(got, src)
		goRoundPairs(want, src, width)
		for i := range got {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				t.Fatalf("word %d is %x, want %x", i, math.Float32bits(got[i]), math.Float32bits(want[i]))
			}
		}
	})
}

func TestParseFormat(t *testing.T) {
	for format := range formats {
		if got, err := ParseFormat(format.String()); got != format || err != nil {
			t.Errorf("ParseFormat(%q) = %v, %v", format, got, err)
		}
	}
	if _, err := ParseFormat("float8"); err == nil {
		t.Error("no error")
	}
}

// BenchmarkFromMemory reads weights that no cache holds, as in generating text:
// the bytes of weights read per second, beside those of a loop that only reads.
func BenchmarkFromMemory(b *testing.B) {
	const n, k, floats = 1536, 576, 1 << 25
	rng := rand.New(rand.NewPCG(15, 16))
	weights := Alloc(floats)
	for i := range weights {
		weights[i] = rng.Float32() - 0.5
	}
	report := func(b *testing.B, bytes int) {
		b.ReportMetric(float64(b.N)*float64(bytes)/b.Elapsed().Seconds()/1e9, "GB/s")
	}
	pool := newTestPool(b, 2)
	b.Run("read", func(b *testing.B) {
		const chunk = 1 << 16
		for b.Loop() {
			pool.Do(floats/chunk, func(_, i int) { Max(weights[i*chunk:][:chunk]) })
		}
		report(b, 4*floats)
	})
	a, c := random(rng, 64*k), make([]float32, 64*n)
	for format := range formats {
		var matrices []*Packed
		for from := 0; from+n*k <= floats; from += n * k {
			matrices = append(matrices, Pack(weights[from:], k, n, k, format))
		}
		bytes := len(matrices) * 4 * len(matrices[0].panels)
		for _, m := range []int{1, 2, 4, 8, 16, 64} {
			b.Run(fmt.Sprintf("%v/m=%d", format, m), func(b *testing.B) {
				for b.Loop() {
					for _, w := range matrices {
						pool.MatMulPacked(c, n, a, k, w, m, false)
					}
				}
				report(b, bytes)
				b.ReportMetric(2*float64(b.N)*float64(len(matrices)*m*n*k)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
