package kernel

import (
	"fmt"
	"math"
)

// Format is how a Packed matrix holds its elements. A matrix that was packed
// in a narrow format gives, bit for bit, the products of the float32 matrix it
// was rounded to: A, C and all sums stay in float32.
type Format uint8

// The formats.
const (
	Float32  Format = iota // as they are: 4 bytes
	BFloat16               // the upper half of a float32, rounded to nearest even: 2 bytes
	formats
)

var formatNames = [formats]string{"float32", "bfloat16"}

// String names the format: "float32" or "bfloat16".
func (f Format) String() string {
	if f >= formats {
		return fmt.Sprintf("Format(%d)", uint8(f))
	}
	return formatNames[f]
}

// ParseFormat gives the format of a name that String returns.
func ParseFormat(name string) (Format, error) {
	for f, known := range formatNames {
		if name == known {
			return Format(f), nil
		}
	}
	return 0, fmt.Errorf("kernel: unknown format %q: want one of %q", name, formatNames)
}

// stepWords is the number of float32 words in which a panel of the format
// holds one row of width columns.
func (f Format) stepWords(width int) int {
	if f == BFloat16 {
		return width / 2
	}
	return width
}

// roundBFloat16 gives x rounded to the nearest bfloat16, to even when two are
// equally near, as the upper half of a word whose lower half is zero. NaN stays
// NaN.
func roundBFloat16(x float32) uint32 {
	bits := math.Float32bits(x)
	if x != x {
		return (bits | 1<<22) &^ 0xffff // one of the upper bits must be set
	}
	return (bits + 0x7fff + bits>>16&1) &^ 0xffff
}

// goRoundPairs rounds a panel to bfloat16. Its columns lie in pairs, column i
// in the lower half of a word and column i+width/2 in the upper half, so that
// one shift and one mask give two vectors of neighbours. len(src) is twice
// len(dst); they may start at the same place.
func goRoundPairs(dst, src []float32, width int) {
	half := width / 2
	for p := 0; p < len(dst); p += half {
		low, high := src[2*p:][:half], src[2*p+half:][:half]
		for i := range half {
			dst[p+i] = math.Float32frombits(roundBFloat16(low[i])>>16 | roundBFloat16(high[i]))
		}
	}
}
