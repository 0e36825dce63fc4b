package warmstart

import (
	"fmt"
	"math"
	"time"

	"github.com/forager-rl/forager/policy/lm"
)

// Progress describes a warm start under way.
type Progress struct {
	Stage        int // from 0
	Tokens       int // trained on so far
	TotalTokens  int
	Step         int
	Loss         float64 // mean negative log-probability of the policy's tokens, nats
	LearningRate float64
	Elapsed      time.Duration
}

// fit is supervised training under way: it raises the log-probabilities of
// demonstrated tokens.
type fit struct {
	trainer       *lm.Trainer
	learningRate  float64 // peak
	warmupSteps   int
	contextWeight float64
	report        func(Progress) // may be nil

	steps, tokens, total int
	start                time.Time
}

// update learns from one batch.
func (f *fit) update(stage int, batch []lm.Sequence) error {
	everything := make([]lm.Sequence, len(batch))
	acted, tokens := 0, 0
	for i, seq := range batch {
		tokens += len(seq.Tokens)
		everything[i] = seq
		if f.contextWeight > 0 {
			everything[i].Mask = make([]bool, len(seq.Tokens))
		}
		for j, m := range seq.Mask {
			if m {
				acted++
			}
			everything[i].Mask[j] = m || j > 0 && f.contextWeight > 0
		}
	}
	normaliser := float32(acted) + float32(f.contextWeight)*float32(tokens-acted)
	loss := 0.0
	err := f.trainer.Accumulate(everything, func(i int, logp, grad []float32) {
		for j, m := range batch[i].Mask {
			if m {
				loss -= float64(logp[j])
				grad[j] = -1 / normaliser
			} else {
				grad[j] = -float32(f.contextWeight) / normaliser
			}
		}
	})
	if err != nil {
		return err
	}
	rate := f.rate()
	if _, finite := f.trainer.Update(float32(rate)); !finite {
		return fmt.Errorf("update %d: the gradient is not finite", f.steps)
	}
	f.steps++
	f.tokens += tokens
	if f.report != nil {
		f.report(Progress{
			Stage: stage, Tokens: f.tokens, TotalTokens: f.total, Step: f.steps, Loss: loss / float64(acted),
			LearningRate: rate, Elapsed: time.Since(f.start),
		})
	}
	return nil
}

// rate rises over the first updates and falls by half a cosine to a tenth.
func (f *fit) rate() float64 {
	if f.steps < f.warmupSteps {
		return f.learningRate * float64(f.steps+1) / float64(f.warmupSteps)
	}
	done := min(1, float64(f.tokens)/float64(f.total))
	return f.learningRate * (0.1 + 0.9*(1+math.Cos(math.Pi*done))/2)
}
