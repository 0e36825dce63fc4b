package lm

import (
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// llama3Scaling finds the settings of Llama 3's rope scaling from the factors
// that llama.cpp divides the frequencies by, one for each pair of dimensions.
//
// A frequency between the two limits is kept to the share
// (turns - low) / (high - low), where turns is how often it goes round in the
// original context. The shares lie on a line, which fixes both limits for a
// given context; the context itself is not in the file and changes nothing, so
// it is taken to be that of every Llama 3.
func llama3Scaling(factors []float32, a Architecture) (*RopeScaling, error) {
	const context, low, high = 8192, 1, 4
	s := &RopeScaling{Type: "llama3", Factor: 1, LowFrequency: low, HighFrequency: high, OriginalContext: context}
	for _, f := range factors {
		s.Factor = max(s.Factor, float64(f))
	}
	a.RopeScaling = nil
	frequencies, _ := a.rotations()
	var turns, shares []float64 // of the frequencies between the limits
	for i, factor := range factors {
		share := (1/float64(factor) - 1/s.Factor) / (1 - 1/s.Factor)
		if share > 1e-3 && share < 1-1e-3 {
			turns, shares = append(turns, frequencies[i]*context/(2*math.Pi)), append(shares, share)
		}
	}
	switch n := len(turns) - 1; {
	case n == 0: // one point: limits in the usual proportion
		s.LowFrequency = turns[0] / (1 + shares[0]*(high-low)/low)
		s.HighFrequency = s.LowFrequency * high / low
	case n > 0:
		width := (turns[n] - turns[0]) / (shares[n] - shares[0])
		s.LowFrequency = nearInteger(turns[0] - shares[0]*width)
		s.HighFrequency = nearInteger(s.LowFrequency + width)
	}
	a.RopeScaling = s
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("not the factors of Llama 3's rope scaling: %w", forager.ErrArchitecture)
	}
	scaled, _ := a.rotations()
	for i, factor := range factors {
		if want := frequencies[i] / scaled[i]; !(math.Abs(float64(factor)-want) <= 1e-4*want) {
			return nil, fmt.Errorf("not the factors of Llama 3's rope scaling: factor %d is %g: %w", i, factor, forager.ErrArchitecture)
		}
	}
	return s, nil
}

// nearInteger takes the nearest integer when x is one but for rounding.
func nearInteger(x float64) float64 {
	if whole := math.Round(x); math.Abs(x-whole) < 1e-3 {
		return whole
	}
	return x
}
