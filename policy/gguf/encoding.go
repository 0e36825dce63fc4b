package gguf

import (
	"encoding/binary"
	"math"

	"github.com/forager-rl/forager/policy/internal/half"
)

// encoding is how the numbers of a tensor are stored: in blocks of the same
// number of bytes.
type encoding struct {
	name   string
	block  int // numbers in a block
	bytes  int // of a block
	decode func(out []float32, src []byte)
}

// superblock is the number of weights in a block of the K encodings.
const superblock = 256

// encodings are those of ggml that this package reads, by their number in the
// file.
var encodings = map[uint32]encoding{
	0:  {"F32", 1, 4, float32s},
	1:  {"F16", 1, 2, float16s},
	2:  {"Q4_0", 32, 18, q4_0},
	3:  {"Q4_1", 32, 20, q4_1},
	6:  {"Q5_0", 32, 22, q5_0},
	7:  {"Q5_1", 32, 24, q5_1},
	8:  {"Q8_0", 32, 34, q8_0},
	12: {"Q4_K", superblock, 144, q4K},
	13: {"Q5_K", superblock, 176, q5K},
	14: {"Q6_K", superblock, 210, q6K},
	30: {"BF16", 1, 2, bfloat16s},
}

// The functions below decode len(out) numbers, whole blocks, of src.

func float32s(out []float32, src []byte) {
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func float16s(out []float32, src []byte) {
	for i := range out {
		out[i] = float16(src[2*i:])
	}
}

func bfloat16s(out []float32, src []byte) {
	for i := range out {
		out[i] = half.FromBFloat16(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func float16(src []byte) float32 { return half.FromFloat16(binary.LittleEndian.Uint16(src)) }

// q4_0: a scale, then 32 numbers of 4 bits, the first half in the low nibbles;
// w = d·(q - 8).
func q4_0(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[32:], src[18:] {
		d := float16(src)
		for i, q := range src[2:18] {
			out[i] = d * float32(int(q&15)-8)
			out[i+16] = d * float32(int(q>>4)-8)
		}
	}
}

// q4_1: a scale and a minimum, then as in q4_0; w = d·q + m.
func q4_1(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[32:], src[20:] {
		d, m := float16(src), float16(src[2:])
		for i, q := range src[4:20] {
			out[i] = d*float32(q&15) + m
			out[i+16] = d*float32(q>>4) + m
		}
	}
}

// q5_0: a scale, the fifth bits of all 32 numbers, then their low four bits as
// in q4_0; w = d·(q - 16).
func q5_0(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[32:], src[22:] {
		d, high := float16(src), binary.LittleEndian.Uint32(src[2:])
		for i, q := range src[6:22] {
			out[i] = d * float32(int(q&15|byte(high>>i&1)<<4)-16)
			out[i+16] = d * float32(int(q>>4|byte(high>>(i+16)&1)<<4)-16)
		}
	}
}

// q5_1: a scale and a minimum, then as in q5_0; w = d·q + m.
func q5_1(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[32:], src[24:] {
		d, m, high := float16(src), float16(src[2:]), binary.LittleEndian.Uint32(src[4:])
		for i, q := range src[8:24] {
			out[i] = d*float32(q&15|byte(high>>i&1)<<4) + m
			out[i+16] = d*float32(q>>4|byte(high>>(i+16)&1)<<4) + m
		}
	}
}

// q8_0: a scale, then 32 signed bytes; w = d·q.
func q8_0(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[32:], src[34:] {
		d := float16(src)
		for i, q := range src[2:34] {
			out[i] = d * float32(int8(q))
		}
	}
}

// q4K: 8 groups of 32 numbers of 4 bits, each with a scale and a minimum of 6
// bits; two floats scale those. A pair of groups shares 32 bytes, the first in
// the low nibbles.
func q4K(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[superblock:], src[144:] {
		scales := groupScales(src)
		for g := range 8 {
			scale, quants := scales[g], src[16+g/2*32:][:32]
			for i, q := range quants {
				out[g*32+i] = scale.d*float32(q>>(g%2*4)&15) - scale.min
			}
		}
	}
}

// q5K: as q4K, with the fifth bits apart: bit g of byte i is that of number i
// of group g.
func q5K(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[superblock:], src[176:] {
		scales, high := groupScales(src), src[16:48]
		for g := range 8 {
			scale, quants := scales[g], src[48+g/2*32:][:32]
			for i, q := range quants {
				out[g*32+i] = scale.d*float32(q>>(g%2*4)&15|high[i]>>g&1<<4) - scale.min
			}
		}
	}
}

type groupScale struct{ d, min float32 }

// groupScales unpacks the head of q4K and q5K: two floats, then eight scales
// and eight minima of 6 bits in 12 bytes. The first four of each lie in the low
// 6 bits of bytes 0 to 3 and 4 to 7; the last four have their low nibbles in
// bytes 8 to 11 and their upper bits on top of the first four.
func groupScales(src []byte) (list [8]groupScale) {
	d, dmin, packed := float16(src), float16(src[2:]), src[4:16]
	for g := range 4 {
		s, m, both := packed[g], packed[g+4], packed[g+8]
		list[g] = groupScale{d * float32(s&63), dmin * float32(m&63)}
		list[g+4] = groupScale{d * float32(both&15|s>>6<<4), dmin * float32(both>>4|m>>6<<4)}
	}
	return list
}

// q6K: two halves of 128 numbers of 6 bits, w = d·scale·(q - 32) with a signed
// byte of scale for 16 numbers. A half holds its low four bits in 64 bytes and
// its upper two in 32: byte i serves the numbers i, i+32, i+64 and i+96.
func q6K(out []float32, src []byte) {
	for ; len(out) > 0; out, src = out[superblock:], src[210:] {
		d := float16(src[208:])
		for h := range 2 {
			low, high, scales, w := src[h*64:][:64], src[128+h*32:][:32], src[192+h*8:][:8], out[h*128:][:128]
			for i := range 128 {
				q := low[i%64]>>(i/64*4)&15 | high[i%32]>>(i/32*2)&3<<4
				w[i] = d * float32(int8(scales[i/16])) * float32(int(q)-32)
			}
		}
	}
}
