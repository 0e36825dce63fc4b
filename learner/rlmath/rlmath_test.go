package rlmath

import (
	"math"
	"testing"
)

func TestMeanStdOfKnownNumbers(t *testing.T) {
	mean, std := MeanStd([]float64{2, 4, 4, 4, 5, 5, 7, 9})
	if mean != 5 || std != 2 {
		t.Fatalf("got mean %v std %v, want 5 and 2", mean, std)
	}
	if mean, std := MeanStd(nil); mean != 0 || std != 0 {
		t.Fatalf("nothing has mean %v std %v, want zeros", mean, std)
	}
}

// The expectation of k3 under p is the divergence itself.
func TestK3IsUnbiased(t *testing.T) {
	p := []float64{.5, .3, .2}
	q := []float64{.2, .2, .6}
	var kl, k3 float64
	for i := range p {
		lp, lq := float32(math.Log(p[i])), float32(math.Log(q[i]))
		kl += p[i] * math.Log(p[i]/q[i])
		v, _ := K3(lp, lq)
		if v < 0 {
			t.Errorf("k3 is negative: %v", v)
		}
		k3 += p[i] * v
	}
	if math.Abs(k3-kl) > 1e-6 {
		t.Fatalf("KL %v, k3 %v", kl, k3)
	}
}

func FuzzLogRatioStaysFinite(f *testing.F) {
	f.Add(float32(-1), float32(-2))
	f.Add(float32(math.Inf(-1)), float32(0))
	f.Add(float32(math.Inf(-1)), float32(math.Inf(-1)))
	f.Add(float32(math.NaN()), float32(0))
	f.Fuzz(func(t *testing.T, a, b float32) {
		d, _ := LogRatio(a, b)
		k, slope := K3(a, b)
		for _, v := range []float64{d, k, slope} {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("LogRatio(%v, %v) = %v, K3 = %v, %v", a, b, d, k, slope)
			}
		}
	})
}
