package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// The dtypes that this package converts. Others of whole bytes are read and
// written as bytes.
const (
	F32  = "F32"
	F16  = "F16"
	BF16 = "BF16"
	I64  = "I64"
	I32  = "I32"
	U64  = "U64"
	U32  = "U32"
	U8   = "U8"
)

// dtypeSize is the number of bytes of one element, 0 for an unknown dtype.
// Dtypes of less than a byte are not supported.
func dtypeSize(dtype string) int {
	switch dtype {
	case "BOOL", U8, "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0":
		return 1
	case F16, BF16, "I16", "U16":
		return 2
	case F32, I32, U32:
		return 4
	case I64, U64, "F64", "C64":
		return 8
	}
	return 0
}

// byteLength is the size of a tensor in bytes. It fails when a dimension is
// negative or the product does not fit an int64.
func byteLength(size int, shape []int) (int64, error) {
	total, empty := uint64(size), false
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d == 0 {
			empty = true
			continue
		}
		high, low := bits.Mul64(total, uint64(d))
		if high != 0 || low > math.MaxInt64 {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		total = low
	}
	if empty {
		return 0, nil
	}
	return int64(total), nil
}

// decodeFloats converts len(out) elements of src.
func decodeFloats(out []float32, src []byte, dtype string) {
	switch dtype {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case F16:
		for i := range out {
			out[i] = halfToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// halfToFloat32 widens an IEEE 754 binary16 number. It is exact.
func halfToFloat32(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exponent := uint32(h>>10) & 0x1f
	fraction := uint32(h) & 0x3ff
	switch {
	case exponent == 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case exponent != 0:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
	}
	small := float32(fraction) / (1 << 24) // zero or subnormal: fraction * 2^-24
	return math.Float32frombits(sign | math.Float32bits(small))
}

// float32ToBFloat16 rounds to the nearest bfloat16, ties to even. A NaN stays a
// NaN.
func float32ToBFloat16(f float32) uint16 {
	b := math.Float32bits(f)
	if math.IsNaN(float64(f)) {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
