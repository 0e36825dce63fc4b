package lm

import (
	"fmt"
	"math"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// Update applies AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with
// global-norm clipping to the accumulated gradients and clears them. A
// gradient that is not finite leaves weights and optimiser state untouched.
func (t *Trainer) Update(lr float32) (norm float64, finite bool) {
	t.allocateGradients()
	t.allocateMoments()
	norm = math.Sqrt(t.sumSquares())
	finite = !math.IsNaN(norm) && !math.IsInf(norm, 0)
	step := kernel.AdamWParams{LR: lr, Beta1: t.cfg.Beta1, Beta2: t.cfg.Beta2, Eps: t.cfg.Epsilon, GradScale: 1}
	if finite {
		t.updates++
		t.adapted, t.merged = true, nil
	}
	if t.cfg.ClipNorm > 0 && norm > t.cfg.ClipNorm {
		step.GradScale = float32(t.cfg.ClipNorm / norm)
	}
	step.Correction1 = float32(1 - math.Pow(float64(t.cfg.Beta1), float64(t.updates)))
	step.Correction2 = float32(1 - math.Pow(float64(t.cfg.Beta2), float64(t.updates)))
	t.workers.each(len(t.spans), func(_ *kernel.Pool, _, i int) {
		s, p := t.spans[i], step
		if s.decays {
			p.WeightDecay = t.cfg.WeightDecay
		}
		gradients := t.gradients[s.from:s.to]
		if finite {
			kernel.AdamW(t.weights[s.from:s.to], gradients, t.moment1[s.from:s.to], t.moment2[s.from:s.to], p)
		}
		clear(gradients)
	})
	return norm, finite
}

// sumSquares adds the spans' sums in order, so that the result does not depend
// on the number of threads.
func (t *Trainer) sumSquares() float64 {
	sums := make([]float64, len(t.spans))
	t.workers.each(len(t.spans), func(_ *kernel.Pool, _, i int) {
		sums[i] = kernel.SumSquares(t.gradients[t.spans[i].from:t.spans[i].to])
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

func (t *Trainer) allocateGradients() {
	if t.gradients == nil {
		t.gradients = make([]float32, len(t.weights))
		t.bind()
	}
}

func (t *Trainer) allocateMoments() {
	if t.moment1 == nil {
		t.moment1, t.moment2 = make([]float32, len(t.weights)), make([]float32, len(t.weights))
	}
}

// OptimizerState is what a checkpoint needs beside the weights to continue.
type OptimizerState struct {
	Updates          uint64
	Moment1, Moment2 []float32 // in the order of the trained weights, Model's or Adapter's
}

// State shares the optimiser's slices: copy or write them before the next
// Update.
func (t *Trainer) State() OptimizerState {
	t.allocateMoments()
	return OptimizerState{Updates: t.updates, Moment1: t.moment1, Moment2: t.moment2}
}

// Restore copies a saved optimiser state.
func (t *Trainer) Restore(s OptimizerState) error {
	if len(s.Moment1) != len(t.weights) || len(s.Moment2) != len(t.weights) {
		return fmt.Errorf("optimiser state has %d and %d moments for %d trained weights: %w", len(s.Moment1), len(s.Moment2), len(t.weights), forager.ErrArchitecture)
	}
	t.allocateMoments()
	copy(t.moment1, s.Moment1)
	copy(t.moment2, s.Moment2)
	t.updates = s.Updates
	return nil
}
