package learner

import "math"

// The shapes of the learning rate after its warm-up.
const (
	DecayConstant = "constant"
	DecayLinear   = "linear"
	DecayCosine   = "cosine"
)

// learningRate is the rate of a step, counted from 0. A decay is on its way over
// all steps and would reach FinalLearningRate one step after the last, so that
// the last step still learns when that is 0.
func (c Config) learningRate(step uint64) float64 {
	if step < c.WarmupSteps {
		return c.LearningRate * float64(step+1) / float64(c.WarmupSteps+1)
	}
	if c.Decay == DecayConstant || c.Steps <= c.WarmupSteps {
		return c.LearningRate
	}
	done := min(1, float64(step-c.WarmupSteps)/float64(c.Steps-c.WarmupSteps))
	remaining := 1 - done
	if c.Decay == DecayCosine {
		remaining = (1 + math.Cos(math.Pi*done)) / 2
	}
	return c.FinalLearningRate + (c.LearningRate-c.FinalLearningRate)*remaining
}
