package half

import (
	"math"
	"testing"
)

func TestFloat16(t *testing.T) {
	for h, want := range map[uint16]float32{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 0x1p-14, 0x0001: 0x1p-24, 0x03ff: 0x1p-14 - 0x1p-24,
		0x7c00: float32(math.Inf(1)), 0x3555: 0.333251953125,
	} {
		if got := FromFloat16(h); got != want {
			t.Errorf("half %#04x: %v, want %v", h, got, want)
		}
	}
	if !math.IsNaN(float64(FromFloat16(0x7e00))) || math.Float32bits(FromFloat16(0x8000)) != 1<<31 {
		t.Error("NaN or negative zero is lost")
	}
}

func TestBFloat16(t *testing.T) {
	for f, want := range map[float32]uint16{
		1: 0x3f80, 1 + 0x1p-8: 0x3f80, 1 + 3*0x1p-8: 0x3f82, 1 + 0x1p-8 + 0x1p-20: 0x3f81, math.MaxFloat32: 0x7f80,
	} {
		if got := ToBFloat16(f); got != want {
			t.Errorf("bfloat16 of %v: %#04x, want %#04x", f, got, want)
		}
	}
	if !math.IsNaN(float64(FromBFloat16(ToBFloat16(math.Float32frombits(0x7f800001))))) {
		t.Error("a NaN became an infinity")
	}
}
