package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" //nolint:revive // avo programs read like assembly
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// strided addresses rows that lie stride bytes apart: one register for every
// three rows, plus twice the stride by scaling.
type strided struct {
	bases  []Register
	stride Register
}

func newStrided(base, stride Register, rows int) strided {
	s := strided{[]Register{base}, stride}
	for r := 3; r < rows; r += 3 {
		next := GP64()
		LEAQ(Mem{Base: s.bases[len(s.bases)-1], Index: stride, Scale: 2}, next)
		ADDQ(stride, next)
		s.bases = append(s.bases, next)
	}
	return s
}

func (s strided) row(r, disp int) Mem {
	m := Mem{Base: s.bases[r/3], Disp: disp}
	if r%3 > 0 {
		m.Index, m.Scale = s.stride, uint8(r%3)
	}
	return m
}

func (s strided) advance(bytes Register) {
	for _, base := range s.bases {
		ADDQ(bytes, base)
	}
}

func stride(name string) Register {
	r := Load(Param(name), GP64())
	SHLQ(U8(2), r)
	return r
}

// tile writes a micro-kernel, see tileKernel in package kernel: a panel is two
// registers wide, and every element of C has an accumulator of its own. The
// panels hold float32, or two bfloat16 to a word: column i in the lower half,
// column i+lanes in the upper.
func tile(s *vectorSet, rows, panels int, bfloat16 bool) {
	format := ""
	if bfloat16 {
		format = "BFloat16"
	}
	s.begin(fmt.Sprintf("tile%dx%d%s", rows, panels, format),
		"func(c []float32, ldc int, a []float32, rowStride, stepA int, b []float32, stepB, panelStride, k int, load bool)",
		fmt.Sprintf("is the micro-kernel of %d rows and %d panels%s.", rows, panels,
			map[bool]string{true: " of bfloat16"}[bfloat16]))
	var upper Op
	if bfloat16 {
		upper = s.constantBits(0xffff0000)
	}
	vectors := 2 * panels
	sum := make([][]VecVirtual, rows)
	for r := range sum {
		for range vectors {
			sum[r] = append(sum[r], s.reg())
		}
	}
	eachC := func(do func(m Mem, sum Register)) {
		c, ldc := Load(Param("c").Base(), GP64()), stride("ldc")
		for r := range rows {
			for v := range vectors {
				do(Mem{Base: c, Disp: v * s.bytes}, sum[r][v])
			}
			if r+1 < rows {
				ADDQ(ldc, c)
			}
		}
	}

	load := Load(Param("load"), GP8())
	TESTB(load, load)
	JNE(LabelRef("old"))
	for r := range rows {
		for v := range vectors {
			s.clear(sum[r][v])
		}
	}
	JMP(LabelRef("start"))
	Label("old")
	eachC(func(m Mem, sum Register) { VMOVUPS(m, sum) })
	Label("start")
	if rows == s.tileRows && panels == 1 {
		// Large products run down the rows of C tile by tile: have this tile in
		// the cache when it is stored, and the next one when it is loaded.
		c, ldc := Load(Param("c").Base(), GP64()), stride("ldc")
		for range 2 * rows {
			for v := range vectors {
				PREFETCHT0(Mem{Base: c, Disp: v * s.bytes})
			}
			ADDQ(ldc, c)
		}
	}

	a := newStrided(Load(Param("a").Base(), GP64()), stride("rowStride"), rows)
	stepA := stride("stepA")
	b := strided{bases: []Register{Load(Param("b").Base(), GP64())}}
	if panels > 1 {
		b = newStrided(b.bases[0], stride("panelStride"), panels)
	}
	stepB := stride("stepB")
	k := Load(Param("k"), GP64())

	Label("loop")
	if panels == 1 || bfloat16 {
		// What the processor fetches ahead by itself comes too late from memory.
		const ahead = 4096
		for q := range panels {
			PREFETCHT0(b.row(q, ahead))
			if !bfloat16 {
				PREFETCHT0(b.row(q, ahead+s.bytes))
			}
		}
	}
	if panels == 1 {
		low, high := s.reg(), s.reg()
		if bfloat16 {
			s.splitPairs(b.row(0, 0), upper, low, high)
		} else {
			VMOVUPS(b.row(0, 0), low)
			VMOVUPS(b.row(0, s.bytes), high)
		}
		b.advance(stepB)
		for r := range rows {
			x := s.reg()
			VBROADCASTSS(a.row(r, 0), x)
			VFMADD231PS(low, x, sum[r][0])
			VFMADD231PS(high, x, sum[r][1])
		}
	} else {
		x := make([]Register, rows)
		for r := range rows {
			x[r] = s.reg()
			VBROADCASTSS(a.row(r, 0), x[r])
		}
		var pair [2]VecVirtual
		for v := range vectors {
			var y Op
			switch {
			case bfloat16 && !s.wide: // 16 registers leave one for the panel
				y = s.half(b.row(v/2, 0), upper, v%2)
			case bfloat16:
				if v%2 == 0 {
					pair = [2]VecVirtual{s.reg(), s.reg()}
					s.splitPairs(b.row(v/2, 0), upper, pair[0], pair[1])
				}
				y = pair[v%2]
			case rows > 1:
				y = s.register(b.row(v/2, v%2*s.bytes))
			default:
				y = b.row(v/2, v%2*s.bytes)
			}
			for r := range rows {
				VFMADD231PS(y, x[r], sum[r][v])
			}
		}
		b.advance(stepB)
	}
	a.advance(stepA)
	DECQ(k)
	JNE(LabelRef("loop"))

	eachC(func(m Mem, sum Register) { VMOVUPS(sum, m) })
	end()
}

// half gives the lower (0) or upper (1) half of pairs of bfloat16 as float32.
func (s *vectorSet) half(pairs Mem, upper Op, which int) VecVirtual {
	y := s.reg()
	VMOVUPS(pairs, y)
	if which == 0 {
		VPSLLD(U8(16), y, y)
	} else {
		VANDPS(upper, y, y)
	}
	return y
}

// splitPairs turns a vector of pairs of bfloat16 into two of float32.
func (s *vectorSet) splitPairs(pairs Mem, upper Op, low, high VecVirtual) {
	if s.wide {
		VMOVUPS(pairs, high)
		VPSLLD(U8(16), high, low)
		VPANDD(upper, high, high)
		return
	}
	VMOVUPS(pairs, high)
	VPSLLD(U8(16), high, low)
	VANDPS(upper, high, high)
}

// packRows writes the copying of rows of B, one panel wide, to a panel.
func packRows(s *vectorSet) {
	s.begin("packRows", "func(dst, src []float32, ld, k int)", "sets dst[p·width+j] = src[p·ld+j] for j < width and p < k.")
	to, from := Load(Param("dst").Base(), GP64()), Load(Param("src").Base(), GP64())
	ld, k := stride("ld"), Load(Param("k"), GP64())
	Label("loop")
	low, high := s.reg(), s.reg()
	VMOVUPS(Mem{Base: from}, low)
	VMOVUPS(Mem{Base: from, Disp: s.bytes}, high)
	VMOVUPS(low, Mem{Base: to})
	VMOVUPS(high, Mem{Base: to, Disp: s.bytes})
	ADDQ(ld, from)
	ADDQ(U32(2*s.bytes), to)
	DECQ(k)
	JNE(LabelRef("loop"))
	end()
}

// transpose8 writes the transposition of 8 rows into columns of a panel.
func transpose8() {
	TEXT("transpose8", 4, "func(dst []float32, dstStride int, src []float32, srcStride, blocks int)")
	Pragma("noescape")
	Doc("transpose8 sets dst[p·dstStride+i] = src[i·srcStride+p] for i < 8 and p < 8·blocks.")
	to := Load(Param("dst").Base(), GP64())
	from := newStrided(Load(Param("src").Base(), GP64()), stride("srcStride"), 8)
	toStride := stride("dstStride")
	blocks := Load(Param("blocks"), GP64())
	four := GP64()
	MOVQ(U32(16), four)
	Label("loop")
	for range 2 {
		// Row i below row i+4; then each half is a 4×4 transposition.
		var row [4]Register
		for i := range row {
			low := YMM()
			VMOVUPS(from.row(i, 0), low.AsX())
			VINSERTF128(U8(1), from.row(i+4, 0), low, low)
			row[i] = low
		}
		from.advance(four)
		var pair [4]Register
		for i := range pair {
			pair[i] = YMM()
		}
		VUNPCKLPS(row[1], row[0], pair[0])
		VUNPCKHPS(row[1], row[0], pair[1])
		VUNPCKLPS(row[3], row[2], pair[2])
		VUNPCKHPS(row[3], row[2], pair[3])
		for column := range 4 {
			out := YMM()
			low, high := pair[column/2], pair[column/2+2]
			if column%2 == 0 {
				VUNPCKLPD(high, low, out)
			} else {
				VUNPCKHPD(high, low, out)
			}
			VMOVUPS(out, Mem{Base: to})
			ADDQ(toStride, to)
		}
	}
	DECQ(blocks)
	JNE(LabelRef("loop"))
	end()
}
