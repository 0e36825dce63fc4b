// Package half converts the two 16-bit floating-point formats in which weights
// are stored: IEEE 754 binary16 ("F16") and bfloat16 ("BF16", the upper half of
// a float32).
//
// Packages below policy that read or write weights import it. It imports
// nothing of this module.
package half

import "math"

// FromFloat16 widens a binary16 number. It is exact; a NaN stays a NaN.
func FromFloat16(h uint16) float32 {
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

// FromBFloat16 widens a bfloat16 number. It is exact.
func FromBFloat16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// ToBFloat16 rounds to the nearest bfloat16, ties to even. A NaN stays a NaN.
func ToBFloat16(f float32) uint16 {
	b := math.Float32bits(f)
	if math.IsNaN(float64(f)) {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
