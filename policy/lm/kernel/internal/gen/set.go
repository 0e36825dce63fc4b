package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build" //nolint:revive // avo programs read like assembly
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vectorSet is what differs between AVX2 and AVX-512: the registers, how many
// there are, and how to leave out the lanes beyond the end of a vector.
type vectorSet struct {
	suffix string
	bytes  int // of a register
	reg    func() VecVirtual
	wide   bool // AVX-512
	tiles  []tileShape

	tileRows int // most rows of a tile

	constants map[uint32]Mem // AVX2: constants in memory
	laneMask  *Mem           // AVX2: ones, then zeros
}

type tileShape struct{ rows, panels int }

func avx2() *vectorSet {
	s := &vectorSet{suffix: "AVX2", bytes: 32, reg: YMM, tileRows: 6, constants: map[uint32]Mem{}}
	for rows := 1; rows <= s.tileRows; rows++ {
		s.tiles = append(s.tiles, tileShape{rows, 1})
	}
	s.tiles = append(s.tiles, tileShape{1, 4}, tileShape{2, 2}, tileShape{3, 2})
	return s
}

func avx512() *vectorSet {
	s := &vectorSet{suffix: "AVX512", bytes: 64, reg: ZMM, tileRows: 12, wide: true}
	for rows := 1; rows <= s.tileRows; rows++ {
		s.tiles = append(s.tiles, tileShape{rows, 1})
	}
	s.tiles = append(s.tiles, tileShape{1, 4}, tileShape{2, 4}, tileShape{3, 2})
	return s
}

func (s *vectorSet) lanes() int { return s.bytes / 4 }

func (s *vectorSet) zero() VecVirtual {
	r := s.reg()
	s.clear(r)
	return r
}

func (s *vectorSet) clear(r Register) {
	if s.wide {
		VPXORD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
}

// constant gives an operand with x in all lanes. AVX-512 has registers enough
// to keep it in one; AVX2 reads it from memory, so it has to be the first
// operand of an instruction. Constants are made at the start of a function.
func (s *vectorSet) constant(x float32) Op { return s.constantBits(math.Float32bits(x)) }

func (s *vectorSet) constantBits(bits uint32) Op {
	if s.wide {
		word, low, r := GP32(), XMM(), s.reg()
		MOVL(U32(bits), word)
		VMOVD(word, low)
		VBROADCASTSS(low, r)
		return r
	}
	if m, ok := s.constants[bits]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("constant%08x", bits), 8|16) // RODATA|NOPTR
	for i := range s.lanes() {
		DATA(4*i, U32(bits))
	}
	s.constants[bits] = m
	return m
}

// register gives op in a register.
func (s *vectorSet) register(op Op) Register {
	if r, ok := op.(Register); ok {
		return r
	}
	r := s.reg()
	VMOVUPS(op, r)
	return r
}

// scalar gives a function that yields a parameter in all lanes of a register:
// always the same one with AVX-512, a fresh one with AVX2.
func (s *vectorSet) scalar(name string) func() Register {
	load := func() Register {
		addr, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		r := s.reg()
		VBROADCASTSS(addr.Addr, r)
		return r
	}
	if !s.wide {
		return load
	}
	r := load()
	return func() Register { return r }
}

// tail stands for the lanes of the last, partly filled vector; nil for all.
type tail struct {
	set  *vectorSet
	mask Register
}

// newTail is a tail of n lanes, n below the lanes of a register.
func (s *vectorSet) newTail(n Register) *tail {
	if s.wide {
		ones, mask := GP32(), K()
		MOVL(I32(-1), ones)
		BZHIL(n.(GPVirtual).As32(), ones, ones)
		KMOVW(ones, mask)
		return &tail{s, mask}
	}
	if s.laneMask == nil {
		m := GLOBL("laneMask", 8|16)
		for i := range s.lanes() {
			DATA(4*i, U32(0xffffffff))
		}
		for i := range s.lanes() {
			DATA(4*(s.lanes()+i), U32(0))
		}
		s.laneMask = &m
	}
	table, index, mask := GP64(), GP64(), s.reg()
	LEAQ(*s.laneMask, table)
	MOVQ(U32(s.lanes()), index)
	SUBQ(n, index)
	VMOVUPS(Mem{Base: table, Index: index, Scale: 4}, mask)
	return &tail{s, mask}
}

// load reads a vector; lanes beyond the tail are 0.
func (s *vectorSet) load(m Mem, t *tail) VecVirtual {
	r := s.reg()
	switch {
	case t == nil:
		VMOVUPS(m, r)
	case s.wide:
		VMOVUPS_Z(m, t.mask, r)
	default:
		VMASKMOVPS(m, t.mask, r)
	}
	return r
}

func (s *vectorSet) store(r Register, m Mem, t *tail) {
	switch {
	case t == nil:
		VMOVUPS(r, m)
	case s.wide:
		VMOVUPS(r, t.mask, m)
	default:
		VMASKMOVPS(r, t.mask, m)
	}
}

// orElse replaces the lanes beyond the tail by those of other.
func (t *tail) orElse(r, other Register) Register {
	if t == nil {
		return r
	}
	result := t.set.reg()
	if t.set.wide {
		VBLENDMPS(r, other, t.mask, result)
	} else {
		VBLENDVPS(t.mask, r, other, result)
	}
	return result
}

// fold combines the lanes of r, pairwise, into the lowest lane.
func (s *vectorSet) fold(r VecVirtual, combine func(a, b, dst Op), double bool) Register {
	if s.wide {
		high := YMM()
		VEXTRACTF64X4(U8(1), r, high)
		combine(high, r.AsY(), r.AsY())
	}
	high := XMM()
	VEXTRACTF128(U8(1), r.AsY(), high)
	combine(high, r.AsX(), r.AsX())
	VPERMILPD(U8(1), r.AsX(), high)
	combine(high, r.AsX(), r.AsX())
	if !double {
		VMOVSHDUP(r.AsX(), high)
		combine(high, r.AsX(), r.AsX())
	}
	return r.AsX()
}

// eachVector writes a loop over vectors: the parameters named by slices go
// through body a vector at a time, which gets the inputs and returns the values
// of outputs. The main loop handles unroll vectors per turn, numbered from 0.
func (s *vectorSet) eachVector(inputs, outputs []string, unroll int, body func(u int, t *tail, x []Register) []Register) {
	bases := map[string]Register{}
	var order []Register
	for _, name := range append(append([]string{}, inputs...), outputs...) {
		if bases[name] == nil {
			bases[name] = Load(Param(name).Base(), GP64())
			order = append(order, bases[name])
		}
	}
	n := Load(Param(append(inputs, outputs...)[0]).Len(), GP64())

	step := func(u int, t *tail) {
		at := func(name string) Mem { return Mem{Base: bases[name], Disp: u * s.bytes} }
		var x []Register
		for _, name := range inputs {
			x = append(x, s.load(at(name), t))
		}
		for i, y := range body(u, t, x) {
			s.store(y, at(outputs[i]), t)
		}
	}
	loop := func(label, next string, vectors int) {
		Label(label)
		CMPQ(n, U32(vectors*s.lanes()))
		JL(LabelRef(next))
		for u := range vectors {
			step(u, nil)
		}
		for _, base := range order {
			ADDQ(U32(vectors*s.bytes), base)
		}
		SUBQ(U32(vectors*s.lanes()), n)
		JMP(LabelRef(label))
	}
	if unroll > 1 {
		loop("several", "single", unroll)
	}
	loop("single", "rest", 1)
	Label("rest")
	TESTQ(n, n)
	JE(LabelRef("done"))
	step(0, s.newTail(n))
	Label("done")
}

func (s *vectorSet) begin(name, signature, doc string) {
	TEXT(name+s.suffix, 4, signature) // NOSPLIT
	Pragma("noescape")
	Doc(name + s.suffix + " " + doc)
}

func end() {
	VZEROUPPER()
	RET()
}

// endWith returns the lowest lane of result. Its store is an SSE instruction,
// which must come after VZEROUPPER not to wait for the upper halves.
func endWith(result Register) {
	VZEROUPPER()
	Store(result, ReturnIndex(0))
	RET()
}

// pause writes a hint to the processor that the program waits in a loop.
func pause() {
	TEXT("pause", 4, "func()")
	Doc("pause is a hint to the processor that the program waits in a loop.")
	PAUSE()
	RET()
}
