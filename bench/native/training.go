package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/forager-rl/forager/policy/lm"
)

// shapes are the models that training is timed with. Weights are random: they
// do not change the time of a step.
var shapes = map[string]lm.Architecture{
	"5m": {
		VocabSize: 4096, HiddenSize: 256, IntermediateSize: 688, Layers: 6, Heads: 8, KVHeads: 4, HeadDim: 32,
		ContextLength: 1024, RopeTheta: 10000, NormEpsilon: 1e-5, TieEmbeddings: true,
	},
	"smollm2": {
		VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3, HeadDim: 64,
		ContextLength: 2048, RopeTheta: 100000, NormEpsilon: 1e-5, TieEmbeddings: true,
	},
}

// training times full steps: forward and backward pass of a next-token loss,
// clipping and AdamW.
type training struct {
	trainer *lm.Trainer
	vocab   int
	batch   int
	length  int
}

func newTraining(args []string) (*training, error) {
	cfg := lm.DefaultTrainerConfig()
	t := &training{}
	flags := flag.NewFlagSet("training", flag.ContinueOnError)
	name := flags.String("shape", "5m", "5m or smollm2")
	flags.IntVar(&t.batch, "batch", 8, "sequences a step")
	flags.IntVar(&t.length, "length", 256, "tokens a sequence")
	flags.IntVar(&cfg.MicroBatchTokens, "micro", cfg.MicroBatchTokens, "tokens of one forward and backward pass")
	flags.IntVar(&cfg.Threads, "threads", 2, "cores to use")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	shape, ok := shapes[*name]
	if !ok {
		return nil, fmt.Errorf("unknown shape %q, want 5m or smollm2", *name)
	}
	m, err := lm.New(shape, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		return nil, err
	}
	t.vocab = m.Arch.VocabSize
	t.trainer, err = lm.NewTrainer(m, cfg)
	return t, err
}

func (t *training) close() error {
	t.trainer.Close()
	return nil
}

func (t *training) run(req request) (result, error) {
	if req.Case != "train" {
		return result{}, errors.New("unknown case")
	}
	random := rand.New(rand.NewPCG(req.Seed, 2))
	batch := make([]lm.Sequence, t.batch)
	for i := range batch {
		batch[i] = lm.Sequence{Tokens: make([]int32, t.length), Mask: make([]bool, t.length)}
		for j := range batch[i].Tokens {
			batch[i].Tokens[j], batch[i].Mask[j] = random.Int32N(int32(t.vocab)), j > 0
		}
	}
	weight := 1 / float32(t.batch*(t.length-1))
	var loss float64
	start := time.Now()
	for range req.Steps {
		loss = 0
		err := t.trainer.Accumulate(batch, func(_ int, logp, grad []float32) {
			for j := 1; j < len(logp); j++ {
				loss -= float64(weight * logp[j])
				grad[j] = -weight
			}
		})
		if err != nil {
			return result{}, err
		}
		if norm, finite := t.trainer.Update(1e-4); !finite {
			return result{}, fmt.Errorf("gradient norm is %g", norm)
		}
	}
	return result{Tokens: req.Steps * t.batch * t.length, Seconds: time.Since(start).Seconds(), Loss: loss}, nil
}
