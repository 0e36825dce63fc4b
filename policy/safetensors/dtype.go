package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/forager-rl/forager/policy/internal/half"
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
			out[i] = half.FromBFloat16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case F16:
		for i := range out {
			out[i] = half.FromFloat16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// encodeFloats is the opposite of decodeFloats for the dtypes that are written,
// F32 and BF16.
func encodeFloats(out []byte, src []float32, dtype string) {
	if dtype == BF16 {
		for i, v := range src {
			binary.LittleEndian.PutUint16(out[2*i:], half.ToBFloat16(v))
		}
		return
	}
	for i, v := range src {
		binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(v))
	}
}
