package reward

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/forager-rl/forager"
)

// Config is a reward recipe as settings: which sources count, how much, after
// which transform.
type Config struct {
	// Weights is the weight of each source by name, such as em or helpful. A
	// source that is not named, or has weight 0, is recorded but does not count.
	Weights map[string]float64 `mapstructure:"weights"`
	// Transforms is applied to the values of a source before its weight. A
	// source that is not named is used as it stands.
	Transforms map[string]Transform `mapstructure:"transforms"`
	// Format is the knobs of the format reward.
	Format FormatConfig `mapstructure:"format"`
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
	return Config{Weights: map[string]float64{SourceEM: 1}, Format: DefaultFormatConfig()}
}

// Validate reports what makes the recipe unusable, or nil.
func (c Config) Validate() error {
	if err := c.Format.Validate(); err != nil {
		return err
	}
	some := false
	for _, source := range sortedKeys(c.Weights) {
		w := c.Weights[source]
		if source == "" {
			return errors.New("reward recipe: a weight has no source name")
		}
		if !finite(w) {
			return fmt.Errorf("reward recipe: weight of %s is %v, want a finite number", source, w)
		}
		some = some || w != 0
	}
	if !some {
		return forager.WithHint(errors.New("reward recipe: no source has a weight"), "set reward.weights, for example em: 1")
	}
	for _, source := range sortedKeys(c.Transforms) {
		t := c.Transforms[source]
		if _, used := c.Weights[source]; !used {
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

// Sources lists the sources that count, sorted.
func (r *Recipe) Sources() []string { return slices.Clone(r.sources) }

// TurnReward is the part of a rollout's reward that belongs to one turn.
type TurnReward struct {
	Turn  int // index in Rollout.Turns
	Value float64
}

// Combine gives the reward of one rollout from its rule rewards and whatever
// labels have arrived. total is the weighted sum over all sources; perTurn,
// sorted by turn, is the part of total that belongs to single turns.
//
// A source without any usable value (absent, null or not finite) adds nothing
// and is listed in missing: it is unknown, which differs from 0. Of several
// labels for one turn and source the latest counts; a label for the whole
// rollout replaces the rule reward of the same source.
func (r *Recipe) Combine(rewards map[string]float64, annotations []forager.Annotation) (total float64, perTurn []TurnReward, missing []string) {
	turns := map[int]float64{}
	for _, source := range r.sources {
		values := latest(source, annotations)
		if v, ok := rewards[source]; ok && finite(v) {
			if _, replaced := values[forager.WholeRollout]; !replaced {
				values[forager.WholeRollout] = v
			}
		}
		if len(values) == 0 {
			missing = append(missing, source)
			continue
		}
		for _, turn := range sortedKeys(values) { // in order: sums must not depend on map order
			v := r.config.Weights[source] * r.config.Transforms[source].apply(values[turn])
			total += v
			if turn != forager.WholeRollout {
				turns[turn] += v
			}
		}
	}
	for _, turn := range sortedKeys(turns) {
		perTurn = append(perTurn, TurnReward{Turn: turn, Value: turns[turn]})
	}
	return total, perTurn, missing
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
