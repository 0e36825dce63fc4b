package lm

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// RopeScaling changes the angles of rotary position embedding, so that a model
// reads contexts longer than those it was first trained with. Field names are
// those of config.json.
type RopeScaling struct {
	// Type is "linear" (positions divided by Factor: Chen et al. 2023, arXiv
	// 2306.15595), "llama3" (only slow rotations divided: Llama 3, arXiv
	// 2407.21783), or "yarn" (Peng et al. 2023, arXiv 2309.00071).
	Type   string  `json:"rope_type"`
	Factor float64 `json:"factor"` // at least 1

	// LowFrequency and HighFrequency are, for llama3, the numbers of turns over
	// the original context below which rotations are divided by Factor and
	// above which they are kept.
	LowFrequency  float64 `json:"low_freq_factor,omitempty"`
	HighFrequency float64 `json:"high_freq_factor,omitempty"`
	// BetaSlow and BetaFast are the same for yarn; 0 means 1 and 32.
	BetaSlow float64 `json:"beta_slow,omitempty"`
	BetaFast float64 `json:"beta_fast,omitempty"`
	// Attention multiplies cosines and sines, for yarn; 0 means 0.1·ln(Factor)+1.
	Attention float64 `json:"attention_factor,omitempty"`
	// OriginalContext is the context length before scaling; 0 means the
	// model's max_position_embeddings.
	OriginalContext int `json:"original_max_position_embeddings,omitempty"`

	Theta float64 `json:"rope_theta,omitempty"` // in rope_parameters only
}

// UnmarshalJSON reads config.json, in which older files call the type "type".
func (s *RopeScaling) UnmarshalJSON(data []byte) error {
	type plain RopeScaling
	var old struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &old); err != nil {
		return err
	}
	if err := json.Unmarshal(data, (*plain)(s)); err != nil {
		return err
	}
	if s.Type == "" {
		s.Type = old.Type
	}
	return nil
}

// normalised gives nil for scaling that does nothing, and otherwise a copy with
// the conventional values filled in.
func (s *RopeScaling) normalised(context int) *RopeScaling {
	if s == nil || s.Type == "default" || s.Type == "" && s.Factor == 0 {
		return nil
	}
	c := *s
	c.Theta = 0
	if c.OriginalContext == 0 {
		c.OriginalContext = context
	}
	if c.Type == "yarn" {
		if c.BetaSlow == 0 {
			c.BetaSlow = 1
		}
		if c.BetaFast == 0 {
			c.BetaFast = 32
		}
		if c.Attention == 0 {
			c.Attention = 0.1*math.Log(c.Factor) + 1
		}
	}
	return &c
}

func (s *RopeScaling) validate() error {
	if s == nil {
		return nil
	}
	switch s.Type {
	case "linear":
	case "llama3":
		if s.LowFrequency <= 0 || s.HighFrequency <= s.LowFrequency {
			return fmt.Errorf("low_freq_factor %g and high_freq_factor %g must be positive and rise", s.LowFrequency, s.HighFrequency)
		}
	case "yarn":
		if s.BetaSlow <= 0 || s.BetaFast <= s.BetaSlow {
			return fmt.Errorf("beta_slow %g and beta_fast %g must be positive and rise", s.BetaSlow, s.BetaFast)
		}
	default:
		return fmt.Errorf("rope_type %q: %w: this engine runs linear, llama3 and yarn", s.Type, forager.ErrArchitecture)
	}
	if s.Factor < 1 || s.OriginalContext < 1 {
		return fmt.Errorf("factor %g and original_max_position_embeddings %d must be at least 1", s.Factor, s.OriginalContext)
	}
	return nil
}

// rotations gives the angle per position of each pair of dimensions, and the
// factor of cosines and sines.
func (a Architecture) rotations() (frequencies []float64, magnitude float64) {
	magnitude = 1
	s := a.RopeScaling
	for i := range a.HeadDim / 2 {
		frequency := math.Pow(a.RopeTheta, -2*float64(i)/float64(a.HeadDim))
		if s != nil {
			keep := 0.0 // share of the unscaled frequency
			turns := frequency * float64(s.OriginalContext) / (2 * math.Pi)
			switch s.Type {
			case "llama3":
				keep = (turns - s.LowFrequency) / (s.HighFrequency - s.LowFrequency)
			case "yarn":
				keep = 1 - (float64(i)-s.dimension(a, s.BetaFast, math.Floor))/
					math.Max(s.dimension(a, s.BetaSlow, math.Ceil)-s.dimension(a, s.BetaFast, math.Floor), 0.001)
			}
			keep = min(max(keep, 0), 1)
			frequency = keep*frequency + (1-keep)*frequency/s.Factor
		}
		frequencies = append(frequencies, frequency)
	}
	if s != nil && s.Type == "yarn" {
		magnitude = s.Attention
	}
	return frequencies, magnitude
}

// dimension is the index of the pair that makes the given number of turns over
// the original context, rounded and within the head (YaRN's "find correction
// dimension").
func (s *RopeScaling) dimension(a Architecture, turns float64, round func(float64) float64) float64 {
	d := float64(a.HeadDim) * math.Log(float64(s.OriginalContext)/(turns*2*math.Pi)) / (2 * math.Log(a.RopeTheta))
	return min(max(round(d), 0), float64(a.HeadDim-1))
}
