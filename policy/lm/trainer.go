package lm

import (
	"fmt"
	"math"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// TrainerConfig says how a Trainer updates weights.
type TrainerConfig struct {
	// Beta1 and Beta2 are AdamW's decay rates of the gradient's first and
	// second moment, each in [0, 1).
	Beta1 float32 `mapstructure:"beta1"`
	Beta2 float32 `mapstructure:"beta2"`
	// Epsilon is added to AdamW's denominator.
	Epsilon float32 `mapstructure:"epsilon"`
	// WeightDecay is AdamW's decoupled decay of matrices; norms are exempt.
	WeightDecay float32 `mapstructure:"weight_decay"`
	// ClipNorm bounds the global norm of the gradient; 0 turns clipping off.
	ClipNorm float64 `mapstructure:"clip_norm"`
	// MicroBatchTokens bounds the tokens of one forward and backward pass, and
	// with them the memory for activations (about 35 KB a token for the
	// built-in policy). One longer sequence still passes.
	MicroBatchTokens int `mapstructure:"-"`
	// Temperature divides the logits, as it did when the tokens were sampled, so
	// that log-probabilities of trainer and engine compare. More than 0.
	Temperature float32 `mapstructure:"-"`
	// Threads is the number of cores to use; 0 means all.
	Threads int `mapstructure:"threads"`
}

// DefaultTrainerConfig gives AdamW's usual settings for small language models.
func DefaultTrainerConfig() TrainerConfig {
	return TrainerConfig{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0, ClipNorm: 1, MicroBatchTokens: 4096, Temperature: 1}
}

// Validate reports the first setting out of range.
func (c TrainerConfig) Validate() error {
	switch {
	case c.Beta1 < 0 || c.Beta1 >= 1 || c.Beta2 < 0 || c.Beta2 >= 1:
		return fmt.Errorf("beta1 %g and beta2 %g must be in [0, 1)", c.Beta1, c.Beta2)
	case c.Epsilon <= 0:
		return fmt.Errorf("epsilon is %g, want more than 0", c.Epsilon)
	case c.WeightDecay < 0:
		return fmt.Errorf("weight_decay is %g, want 0 or more", c.WeightDecay)
	case c.ClipNorm < 0:
		return fmt.Errorf("clip_norm is %g, want 0 or more", c.ClipNorm)
	case c.MicroBatchTokens < 1:
		return fmt.Errorf("micro_batch_tokens is %d, want at least 1", c.MicroBatchTokens)
	case c.Temperature <= 0:
		return fmt.Errorf("temperature is %g, want more than 0", c.Temperature)
	case c.Threads < 0:
		return fmt.Errorf("threads is %d, want 0 or more", c.Threads)
	}
	return nil
}

// Trainer owns the gradients and the optimiser state of a model. It is used by
// one goroutine at a time.
type Trainer struct {
	cfg     TrainerConfig
	model   *Model
	workers *workers
	rope    rope
	acts    activations

	gradients []float32
	grads     params
	moment1   []float32
	moment2   []float32
	updates   uint64 // AdamW's step count
}

// NewTrainer prepares to train m in place. Close ends its worker goroutines.
func NewTrainer(m *Model, cfg TrainerConfig) (*Trainer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := len(m.Weights)
	t := &Trainer{
		cfg: cfg, model: m, workers: newWorkers(cfg.Threads), rope: newRope(m.Arch),
		gradients: make([]float32, n), moment1: make([]float32, n), moment2: make([]float32, n),
	}
	t.grads = m.Arch.view(t.gradients)
	return t, nil
}

// Close ends the worker goroutines. It is safe twice.
func (t *Trainer) Close() { t.workers.close() }

// Model is the model being trained; its weights change in Update.
func (t *Trainer) Model() *Model { return t.model }

// Sequence is one token sequence and the positions whose log-probabilities are
// asked for. Mask[0] must be false: nothing predicts the first token.
type Sequence struct {
	Tokens []int32
	Mask   []bool
}

func (t *Trainer) check(seqs []Sequence) error {
	for i, s := range seqs {
		switch {
		case len(s.Tokens) == 0 || len(s.Tokens) != len(s.Mask):
			return fmt.Errorf("sequence %d has %d tokens and %d mask entries", i, len(s.Tokens), len(s.Mask))
		case len(s.Tokens) > t.model.Arch.ContextLength:
			return fmt.Errorf("sequence %d has %d tokens, the model's context is %d", i, len(s.Tokens), t.model.Arch.ContextLength)
		case s.Mask[0]:
			return fmt.Errorf("sequence %d masks its first token, which nothing predicts", i)
		}
		for _, id := range s.Tokens {
			if id < 0 || int(id) >= t.model.Arch.VocabSize {
				return fmt.Errorf("sequence %d holds token %d, the vocabulary has %d", i, id, t.model.Arch.VocabSize)
			}
		}
	}
	return nil
}

// Logprobs gives log π(token | earlier tokens) at the masked positions of each
// sequence, 0 elsewhere.
func (t *Trainer) Logprobs(seqs []Sequence) ([][]float32, error) {
	if err := t.check(seqs); err != nil {
		return nil, err
	}
	out := make([][]float32, len(seqs))
	for _, part := range t.microBatches(seqs) {
		first := part.first
		t.forward(part.seqs)
		t.head(part.seqs, false, func(i int, logp, _ []float32) {
			out[first+i] = append([]float32(nil), logp...)
		})
	}
	return out, nil
}

// Logits gives the raw scores [len(tokens), vocab] of every token's successor,
// before the temperature. It is for checks and short inputs: all of them are in
// memory at once.
func (t *Trainer) Logits(tokens []int32) ([]float32, error) {
	seqs := []Sequence{{Tokens: tokens, Mask: make([]bool, len(tokens))}}
	if err := t.check(seqs); err != nil {
		return nil, err
	}
	d, vocab := t.model.Arch.HiddenSize, t.model.Arch.VocabSize
	t.forward(seqs)
	logits := make([]float32, len(tokens)*vocab)
	t.workers.pool.MatMulTransB(logits, vocab, t.acts.normed, d, t.model.params.head, d, len(tokens), vocab, d, false)
	return logits, nil
}

// Accumulate runs forward and backward and adds to the gradients. For every
// sequence loss gets the log-probabilities at the masked positions (0
// elsewhere) and fills grad, zeroed before, with dLoss/dlogp of the same
// positions. Calls come in order, from one goroutine; the slices are valid
// during the call.
func (t *Trainer) Accumulate(seqs []Sequence, loss func(i int, logp, grad []float32)) error {
	if err := t.check(seqs); err != nil {
		return err
	}
	for _, part := range t.microBatches(seqs) {
		first := part.first
		t.forward(part.seqs)
		t.head(part.seqs, true, func(i int, logp, grad []float32) { loss(first+i, logp, grad) })
		t.backward(part.seqs)
	}
	return nil
}

// microBatch is a run of consecutive sequences within the token budget.
type microBatch struct {
	first int
	seqs  []Sequence
}

func (t *Trainer) microBatches(seqs []Sequence) []microBatch {
	var list []microBatch
	start, tokens := 0, 0
	for i, s := range seqs {
		if i > start && tokens+len(s.Tokens) > t.cfg.MicroBatchTokens {
			list = append(list, microBatch{start, seqs[start:i]})
			start, tokens = i, 0
		}
		tokens += len(s.Tokens)
	}
	if start < len(seqs) {
		list = append(list, microBatch{start, seqs[start:]})
	}
	return list
}

// Update applies AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with
// global-norm clipping to the accumulated gradients and clears them. A
// gradient that is not finite leaves weights and optimiser state untouched.
func (t *Trainer) Update(lr float32) (norm float64, finite bool) {
	defer clear(t.gradients)
	norm = math.Sqrt(t.sumSquares())
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return norm, false
	}
	scale := float32(1)
	if t.cfg.ClipNorm > 0 && norm > t.cfg.ClipNorm {
		scale = float32(t.cfg.ClipNorm / norm)
	}
	t.updates++
	step := kernel.AdamWParams{
		LR: lr, Beta1: t.cfg.Beta1, Beta2: t.cfg.Beta2, Eps: t.cfg.Epsilon, GradScale: scale,
		Correction1: float32(1 - math.Pow(float64(t.cfg.Beta1), float64(t.updates))),
		Correction2: float32(1 - math.Pow(float64(t.cfg.Beta2), float64(t.updates))),
	}
	tensors := t.model.Arch.tensors()
	t.workers.each(len(tensors), func(_ *kernel.Pool, _, i int) {
		p := step
		if len(tensors[i].shape) > 1 {
			p.WeightDecay = t.cfg.WeightDecay
		}
		a, b := tensors[i].offset, tensors[i].offset+tensors[i].len()
		kernel.AdamW(t.model.Weights[a:b], t.gradients[a:b], t.moment1[a:b], t.moment2[a:b], p)
	})
	return norm, true
}

func (t *Trainer) sumSquares() float64 {
	const block = 1 << 16 // fixed, so that the sum does not depend on the number of threads
	n := (len(t.gradients) + block - 1) / block
	sums := make([]float64, n)
	t.workers.each(n, func(_ *kernel.Pool, _, i int) {
		sums[i] = kernel.SumSquares(t.gradients[i*block : min((i+1)*block, len(t.gradients))])
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

// OptimizerState is what a checkpoint needs beside the weights to continue.
type OptimizerState struct {
	Updates          uint64
	Moment1, Moment2 []float32 // in the order of Model.Weights
}

// State shares the optimiser's slices: copy or write them before the next
// Update.
func (t *Trainer) State() OptimizerState {
	return OptimizerState{Updates: t.updates, Moment1: t.moment1, Moment2: t.moment2}
}

// Restore copies a saved optimiser state.
func (t *Trainer) Restore(s OptimizerState) error {
	if len(s.Moment1) != len(t.moment1) || len(s.Moment2) != len(t.moment2) {
		return fmt.Errorf("optimiser state has %d and %d moments, the model %d weights: %w", len(s.Moment1), len(s.Moment2), len(t.moment1), forager.ErrArchitecture)
	}
	copy(t.moment1, s.Moment1)
	copy(t.moment2, s.Moment2)
	t.updates = s.Updates
	return nil
}
