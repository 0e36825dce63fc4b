package rewardmodel

import "fmt"

// Kind says what a model learned from, and so what its scores mean.
type Kind string

// The kinds of reward models.
const (
	Classification Kind = "classification" // labels 0 to 1 of single turns; scores are probabilities
	Ranking        Kind = "ranking"        // preferences between two turns; scores have mean 0 and variance 1
)

// Config is the settings of a reward model. All but Kind and LearningRate
// are ONI's unless they say otherwise.
type Config struct {
	// Kind is classification (labels of single turns) or ranking (preferences
	// between two turns). The reward server also takes none, and retrieval, the
	// table of labels itself; both train nothing.
	Kind Kind `mapstructure:"kind"`
	// Threshold is the probability above which a turn is rewarded by a classification model, 0 to 1:
	// the higher, the sparser the reward.
	Threshold float64 `mapstructure:"threshold"`
	// Epsilon is the normalised score above which a turn is rewarded by a ranking model.
	Epsilon float64 `mapstructure:"epsilon"`
	// BatchSize is the number of labels in one gradient step.
	BatchSize int `mapstructure:"batch_size"`
	// LearningRate is Adam's. ONI uses 0.0001 for layers of 512 units; the layer here has 32, and Adam's best rate
	// goes with the inverse of the width (Yang et al. 2022, "Tensor Programs V").
	LearningRate float64 `mapstructure:"learning_rate"`
	// Dropout is the share of hidden units that are left out of a training step.
	Dropout float64 `mapstructure:"dropout"`
	// GradientClip bounds the norm of the gradient of one step.
	GradientClip float64 `mapstructure:"gradient_clip"`
	// Steps is the number of gradient steps at each arrival of labels, until there are ManyLabels; one from then on.
	Steps int `mapstructure:"steps"`
	// ManyLabels is the number of labels from which each arrival is worth one gradient step.
	ManyLabels int `mapstructure:"many_labels"`
	// MaxExamples bounds the labels that are kept to train on, about 0.9 kB each, twice that for preferences. Beyond it
	// those kept are a uniform sample of all that ever came.
	MaxExamples int `mapstructure:"max_examples"`
	// MinLabels is the number of labels before which the model is not worth publishing.
	MinLabels int `mapstructure:"min_labels"`
}

// DefaultConfig is a classification model with ONI's schedule.
func DefaultConfig() Config {
	return Config{
		Kind: Classification, Threshold: 0.5, Epsilon: -0.5,
		BatchSize: 256, LearningRate: 0.002, Dropout: 0.1, GradientClip: 10,
		Steps: 32, ManyLabels: 25_000, MaxExamples: 20_000, MinLabels: 100,
	}
}

// Validate reports the first setting out of range, or nil.
func (c Config) Validate() error {
	switch {
	case c.Kind != Classification && c.Kind != Ranking:
		return fmt.Errorf("reward model: kind is %q, want %s or %s", c.Kind, Classification, Ranking)
	case !(c.Threshold >= 0 && c.Threshold <= 1):
		return fmt.Errorf("reward model: threshold is %v, want 0 to 1", c.Threshold)
	case !(c.Epsilon >= -100 && c.Epsilon <= 100):
		return fmt.Errorf("reward model: epsilon is %v, want -100 to 100", c.Epsilon)
	case !(c.LearningRate > 0 && c.LearningRate <= 1):
		return fmt.Errorf("reward model: learning_rate is %v, want more than 0, at most 1", c.LearningRate)
	case !(c.Dropout >= 0 && c.Dropout <= 0.9):
		return fmt.Errorf("reward model: dropout is %v, want 0 to 0.9", c.Dropout)
	case !(c.GradientClip > 0):
		return fmt.Errorf("reward model: gradient_clip is %v, want more than 0", c.GradientClip)
	}
	for _, k := range []struct {
		name        string
		value, most int
	}{
		{"batch_size", c.BatchSize, 1 << 16},
		{"steps", c.Steps, 10_000},
		{"many_labels", c.ManyLabels, 1 << 40},
		{"max_examples", c.MaxExamples, maxStored},
		{"min_labels", c.MinLabels, 1 << 40},
	} {
		if k.value < 1 || k.value > k.most {
			return fmt.Errorf("reward model: %s is %d, want 1 to %d", k.name, k.value, k.most)
		}
	}
	return nil
}
