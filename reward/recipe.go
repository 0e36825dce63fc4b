package reward

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/forager-rl/forager"
)

// Config is a reward recipe as settings: which sources count, how much, after
// which transform, and what searches are paid for what they bring.
type Config struct {
	// Weights is the weight of each source by name, such as em or helpful. A
	// source that is not named, or has weight 0, is recorded but does not count.
	Weights map[string]float64 `mapstructure:"weights"`
	// Transforms is applied to the values of a source before its weight. A
	// source that is not named is used as it stands.
	Transforms map[string]Transform `mapstructure:"transforms"`
	// Format is the knobs of the format reward.
	Format FormatConfig `mapstructure:"format"`
	// ExtrinsicCoefficient is c_ext, which multiplies the sum over weights, 0 or
	// more; 0 leaves the intrinsic reward alone.
	ExtrinsicCoefficient float64 `mapstructure:"extrinsic_coefficient"`
	// Intrinsic is the reward for what searches bring.
	Intrinsic IntrinsicConfig `mapstructure:"intrinsic"`
}

// Transform maps a value x to scale·x + bias, clipped to [min, max].
type Transform struct {
	// Scale multiplies the value; 0 means 1 (leave a source out by its weight).
	Scale float64 `mapstructure:"scale"`
	// Bias is added after scaling.
	Bias float64 `mapstructure:"bias"`
	// Min and Max bound the result; both 0 means no bounds.
	Min float64 `mapstructure:"min"`
	// Max is the upper bound, see Min.
	Max float64 `mapstructure:"max"`
}

// DefaultConfig rewards exact match alone.
func DefaultConfig() Config {
	return Config{
		Weights: map[string]float64{SourceEM: 1}, Format: DefaultFormatConfig(),
		ExtrinsicCoefficient: 1, Intrinsic: DefaultIntrinsicConfig(),
	}
}

// Validate reports what makes the recipe unusable, or nil.
func (c Config) Validate() error {
	if err := c.Format.Validate(); err != nil {
		return err
	}
	if err := c.Intrinsic.Validate(); err != nil {
		return fmt.Errorf("reward recipe: %w", err)
	}
	if !finite(c.ExtrinsicCoefficient) || c.ExtrinsicCoefficient < 0 {
		return fmt.Errorf("reward recipe: extrinsic_coefficient is %v, want 0 or more", c.ExtrinsicCoefficient)
	}
	some := c.Intrinsic.counts()
	for _, source := range sortedKeys(c.Weights) {
		w := c.Weights[source]
		if source == "" {
			return errors.New("reward recipe: a weight has no source name")
		}
		if !finite(w) {
			return fmt.Errorf("reward recipe: weight of %s is %v, want a finite number", source, w)
		}
		if w != 0 && source == c.Intrinsic.Source {
			return forager.WithHint(fmt.Errorf("reward recipe: %s is paid twice, by its weight and as the intrinsic source", source), "remove one of the two")
		}
		some = some || w != 0 && c.ExtrinsicCoefficient > 0
	}
	if !some {
		return forager.WithHint(errors.New("reward recipe: nothing is rewarded"), "set reward.weights, for example em: 1")
	}
	for _, source := range sortedKeys(c.Transforms) {
		t := c.Transforms[source]
		if _, used := c.Weights[source]; !used && source != c.Intrinsic.Source {
			return forager.WithHint(fmt.Errorf("reward recipe: transform of %s, which has no weight", source), "add a weight for it or remove the transform")
		}
		if !finite(t.Scale) || !finite(t.Bias) || !finite(t.Min) || !finite(t.Max) {
			return fmt.Errorf("reward recipe: transform of %s is not finite", source)
		}
		if t.Min > t.Max {
			return fmt.Errorf("reward recipe: transform of %s has min %v above max %v", source, t.Min, t.Max)
		}
	}
	return nil
}

func (t Transform) apply(x float64) float64 {
	if t.Scale != 0 {
		x *= t.Scale
	}
	x += t.Bias
	if t.Min != 0 || t.Max != 0 {
		x = min(max(x, t.Min), t.Max)
	}
	return x
}

// Recipe combines the values of several sources. It is read-only and safe for
// concurrent use.
type Recipe struct {
	config  Config
	sources []string // with a weight other than 0, sorted
}

// NewRecipe checks the settings and makes the recipe.
func NewRecipe(c Config) (*Recipe, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Recipe{config: c}
	for _, source := range sortedKeys(c.Weights) {
		if c.Weights[source] != 0 {
			r.sources = append(r.sources, source)
		}
	}
	return r, nil
}

// Sources lists the sources that count, sorted, the intrinsic one last.
func (r *Recipe) Sources() []string {
	list := slices.Clone(r.sources)
	if r.config.Intrinsic.counts() {
		list = append(list, r.config.Intrinsic.Source)
	}
	return list
}

// Combined is the reward of one rollout and what it is made of.
type Combined struct {
	Total     float64      // c_ext · the weighted sum over sources, and Intrinsic
	Intrinsic float64      // the part of Total that is paid for what searches brought
	Turns     []TurnReward // the part of Total that belongs to single turns, by turn
	Missing   []string     // sources that count and are unknown, in the order of Sources
}

// TurnReward is the part of a rollout's reward that belongs to one turn.
type TurnReward struct {
	Turn  int // index in Rollout.Turns
	Value float64
}

// Combine gives the reward of one rollout from its rule rewards and whatever
// annotations it has, at a learner step, counted from 0.
//
// A source without any usable value (absent, null or not finite) adds nothing
// and is missing: it is unknown, which differs from 0. Of several annotations
// for one turn and source the latest counts; one for the whole rollout replaces
// the rule reward of the same source. The intrinsic source is about turns alone.
func (r *Recipe) Combine(rollout *forager.Rollout, step uint64) Combined {
	var c Combined
	turns := map[int]float64{}
	for _, source := range r.sources {
		values := latest(source, rollout.Annotations)
		if v, ok := rollout.Rewards[source]; ok && finite(v) {
			if _, replaced := values[forager.WholeRollout]; !replaced {
				values[forager.WholeRollout] = v
			}
		}
		if len(values) == 0 {
			c.Missing = append(c.Missing, source)
			continue
		}
		for _, turn := range sortedKeys(values) { // in order: sums must not depend on map order
			v := r.config.ExtrinsicCoefficient * r.config.Weights[source] * r.config.Transforms[source].apply(values[turn])
			c.Total += v
			if turn != forager.WholeRollout {
				turns[turn] += v
			}
		}
	}
	if r.config.Intrinsic.counts() {
		r.addIntrinsic(&c, rollout, step, turns)
	}
	for _, turn := range sortedKeys(turns) {
		c.Turns = append(c.Turns, TurnReward{Turn: turn, Value: turns[turn]})
	}
	return c
}

// addIntrinsic pays the turns that have a value.
func (r *Recipe) addIntrinsic(c *Combined, rollout *forager.Rollout, step uint64, turns map[int]float64) {
	source := r.config.Intrinsic.Source
	values := latest(source, rollout.Annotations)
	known := false
	for turn, n := range visits(rollout.Turns) {
		value, ok := values[turn]
		if !ok {
			continue
		}
		known = true
		v := r.config.Intrinsic.pay(step, r.config.Transforms[source].apply(value), n)
		c.Intrinsic += v
		turns[turn] += v
	}
	c.Total += c.Intrinsic
	if !known {
		c.Missing = append(c.Missing, source)
	}
}

// latest gives the newest usable value of a source by turn.
func latest(source string, annotations []forager.Annotation) map[int]float64 {
	values := map[int]float64{}
	newest := map[int]forager.Annotation{}
	for _, a := range annotations {
		if a.Source != source || a.Value == nil || !finite(*a.Value) {
			continue
		}
		if old, seen := newest[a.Turn]; seen && a.Time.Before(old.Time) {
			continue
		}
		newest[a.Turn], values[a.Turn] = a, *a.Value
	}
	return values
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func sortedKeys[K int | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
