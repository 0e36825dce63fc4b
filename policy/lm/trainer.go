package lm

import (
	"fmt"
	"slices"
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
	// with them the memory for activations (about 25 KB a token for the
	// built-in policy). One longer sequence still passes.
	MicroBatchTokens int `mapstructure:"-"`
	// Recompute keeps only the input of each layer in the forward pass and
	// computes the rest again in the backward pass: a third more work for
	// activations that hardly grow with the number of layers. Results are the
	// same, bit for bit.
	Recompute bool `mapstructure:"recompute"`
	// LoRA trains low-rank adapters in place of the model's own weights.
	LoRA LoRAConfig `mapstructure:"lora"`
	// Temperature divides the logits, as it did when the tokens were sampled, so
	// that log-probabilities of trainer and engine compare. More than 0.
	Temperature float32 `mapstructure:"-"`
	// Threads is the number of cores to use; 0 means all.
	Threads int `mapstructure:"threads"`
}

// DefaultTrainerConfig gives AdamW's usual settings for small language models.
func DefaultTrainerConfig() TrainerConfig {
	return TrainerConfig{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0, ClipNorm: 1, MicroBatchTokens: 4096, LoRA: DefaultLoRAConfig(), Temperature: 1}
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
	if err := c.LoRA.Validate(); err != nil {
		return fmt.Errorf("lora: %w", err)
	}
	return nil
}

// Trainer owns the gradients and the optimiser state of a model, or of adapters
// to it. It is used by one goroutine at a time.
type Trainer struct {
	cfg     TrainerConfig
	model   *Model
	adapter *Adapter // nil when the model itself is trained
	adapted bool     // it differs from a fresh one, which changes nothing
	merged  *Model   // the model with the adapter, or nil until it is asked for
	workers *workers
	rope    rope
	layers  []layer

	// What is trained: the model's weights or the adapter's. Gradients and
	// moments come into being when they are needed.
	weights   []float32
	spans     []span
	gradients []float32
	moment1   []float32
	moment2   []float32
	updates   uint64 // AdamW's step count

	grads      params // of the model; empty when it is frozen
	packing    packing
	acts       activations
	memory     []float32 // of acts
	scores     Scores
	logitBytes int
}

// span is a part of the trained weights that one thread updates at once.
type span struct {
	from, to int
	decays   bool
}

// NewTrainer prepares to train m in place, or adapters to it; m is read only
// then. Close ends its worker goroutines.
func NewTrainer(m *Model, cfg TrainerConfig) (*Trainer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t := &Trainer{cfg: cfg, model: m, weights: m.Weights, rope: newRope(m.Arch), logitBytes: logitBytes}
	tensors := m.Arch.tensors()
	if cfg.LoRA.Rank > 0 {
		adapter, err := NewAdapter(m.Arch, cfg.LoRA)
		if err != nil {
			return nil, err
		}
		t.adapter, t.weights, tensors = adapter, adapter.Weights, adapter.tensors()
	}
	for _, tensor := range tensors {
		const size = 1 << 14 // weights, gradients and moments of a span fit into a core's cache
		end := tensor.offset + tensor.len()
		for from := tensor.offset; from < end; from += size {
			t.spans = append(t.spans, span{from: from, to: min(end, from+size), decays: len(tensor.shape) > 1})
		}
	}
	t.workers = newWorkers(cfg.Threads)
	t.bind()
	return t, nil
}

// Close ends the worker goroutines. It is safe twice.
func (t *Trainer) Close() { t.workers.close() }

// Model is the policy as trained so far, with adapters merged into its weights.
// It is not to be written to, and is valid until the next Update.
func (t *Trainer) Model() *Model {
	if !t.adapted || t.adapter == nil {
		return t.model
	}
	if t.merged == nil {
		t.merged = t.adapter.merge(t.model, t.workers.pool)
	}
	return t.merged
}

// Adapter is what is trained beside the model, nil when that is the model
// itself. It changes in Update.
func (t *Trainer) Adapter() *Adapter { return t.adapter }

// Score gives log-probabilities and entropies of each sequence.
func (t *Trainer) Score(seqs []Sequence) ([]Scores, error) {
	if err := t.model.Arch.checkSequences(seqs); err != nil {
		return nil, err
	}
	out := make([]Scores, len(seqs))
	for _, part := range t.microBatches(seqs) {
		t.forward(part.seqs, false, false)
		t.head(part.seqs, false, func(i int, s *Scores) {
			out[part.first+i] = Scores{Logprobs: slices.Clone(s.Logprobs), Entropies: slices.Clone(s.Entropies)}
		})
	}
	return out, nil
}

// Logprobs gives log π(token | earlier tokens) at the masked positions of each
// sequence, 0 elsewhere.
func (t *Trainer) Logprobs(seqs []Sequence) ([][]float32, error) {
	scores, err := t.Score(seqs)
	out := make([][]float32, len(scores))
	for i, s := range scores {
		out[i] = s.Logprobs
	}
	return out, err
}

// Logits gives the raw scores [len(tokens), vocab] of every token's successor,
// before the temperature. It is for checks and short inputs: all of them are in
// memory at once.
func (t *Trainer) Logits(tokens []int32) ([]float32, error) {
	seqs := []Sequence{{Tokens: tokens, Mask: make([]bool, len(tokens))}}
	if err := t.model.Arch.checkSequences(seqs); err != nil {
		return nil, err
	}
	d, vocab := t.model.Arch.HiddenSize, t.model.Arch.VocabSize
	t.forward(seqs, true, false)
	logits := make([]float32, len(tokens)*vocab)
	t.workers.pool.MatMulTransB(logits, vocab, t.acts.normed, d, t.model.params.head, d, len(tokens), vocab, d, false)
	return logits, nil
}

// Accumulate is AccumulateScores for a loss of the log-probabilities alone: it
// gets those of sequence i and fills grad with dLoss/dlogp.
func (t *Trainer) Accumulate(seqs []Sequence, loss func(i int, logp, grad []float32)) error {
	return t.AccumulateScores(seqs, func(i int, s *Scores) { loss(i, s.Logprobs, s.LogprobGrads) })
}

// AccumulateScores runs forward and backward and adds to the gradients. For
// every sequence loss gets the scores and fills in the loss's gradients for
// them at the masked positions. Calls come in order, from one goroutine; the
// slices are valid during the call.
func (t *Trainer) AccumulateScores(seqs []Sequence, loss func(i int, s *Scores)) error {
	if err := t.model.Arch.checkSequences(seqs); err != nil {
		return err
	}
	t.allocateGradients()
	for _, part := range t.microBatches(seqs) {
		t.forward(part.seqs, false, true)
		t.head(part.seqs, true, func(i int, s *Scores) { loss(part.first+i, s) })
		t.backward()
	}
	return nil
}

// bind points the layers at weights and gradients.
func (t *Trainer) bind() {
	a := t.model.Arch
	if t.adapter == nil && t.gradients != nil {
		t.grads = a.view(t.gradients)
	}
	t.layers = make([]layer, a.Layers)
	for l := range t.layers {
		var g layerParams
		if t.grads.layers != nil {
			g = t.grads.layers[l]
		}
		t.layers[l] = newLayer(a, t.model.params.layers[l], g)
	}
	if t.adapter != nil {
		t.adapter.attach(t.layers, t.gradients)
	}
}
