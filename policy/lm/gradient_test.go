package lm

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// testLoss is a loss of every log-probability and entropy: Σ c·logp + e·H.
type testLoss struct{ temperature float64 }

func (testLoss) weights(i, j int) (c, e float64) {
	return math.Sin(float64(i*31 + j)), math.Cos(float64(i*17 + j*3))
}

// train runs the trainer on it.
func (l testLoss) train(t testing.TB, tr *Trainer, seqs []Sequence) {
	t.Helper()
	if err := tr.AccumulateScores(seqs, func(i int, s *Scores) {
		for j := range s.Logprobs {
			c, e := l.weights(i, j)
			s.LogprobGrads[j], s.EntropyGrads[j] = float32(c), float32(e)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// value computes it with the float64 model.
func (l testLoss) value(m *Model, seqs []Sequence) float64 {
	total := 0.0
	for i, s := range seqs {
		rows := referenceLogprobs(m, s.Tokens)
		for j, masked := range s.Mask {
			if !masked {
				continue
			}
			row, sum := rows[j-1], 0.0
			for k := range row {
				row[k] /= l.temperature
				sum += math.Exp(row[k])
			}
			entropy := 0.0
			for k := range row {
				row[k] -= math.Log(sum)
				entropy -= math.Exp(row[k]) * row[k]
			}
			c, e := l.weights(i, j)
			total += c*row[s.Tokens[j]] + e*entropy
		}
	}
	return total
}

// checkGradients compares, tensor by tensor, the gradient along random
// directions with central differences of loss, which depends on weights.
func checkGradients(t *testing.T, tensors []tensor, weights, gradients []float32, loss func() float64) {
	t.Helper()
	const directions, step, tolerance = 2, 5e-4, 2e-3
	random := rand.New(rand.NewPCG(5, 5))
	for _, tensor := range tensors {
		w, g := weights[tensor.offset:][:tensor.len()], gradients[tensor.offset:][:tensor.len()]
		norm := 0.0
		for _, v := range g {
			norm += float64(v) * float64(v)
		}
		norm = math.Sqrt(norm)
		for range directions {
			old, up, down := slices.Clone(w), make([]float32, len(w)), make([]float32, len(w))
			predicted, length := 0.0, 0.0
			for k := range w {
				h := step * random.NormFloat64() / math.Sqrt(float64(len(w)))
				if norm > 0 { // also along the gradient, so that rounding matters little
					h += step * float64(g[k]) / norm
				}
				up[k], down[k] = old[k]+float32(h), old[k]-float32(h)
				moved := float64(up[k]) - float64(down[k])
				predicted += moved * float64(g[k])
				length += moved * moved
			}
			copy(w, up)
			measured := loss()
			copy(w, down)
			measured -= loss()
			copy(w, old)
			if diff := math.Abs(measured - predicted); diff > tolerance*norm*math.Sqrt(length)+1e-6 || math.IsNaN(diff) {
				t.Errorf("%s: the loss moves by %.6g, the gradient says %.6g", tensor.name, measured, predicted)
			}
		}
	}
}

func TestGradients(t *testing.T) {
	for name, arch := range family() {
		t.Run(name, func(t *testing.T) {
			m := loud(t, arch, 7)
			seqs := randomSequences(3, arch.VocabSize, 9, 71, 1, 20)
			loss := testLoss{temperature: 0.7}
			tr := newTrainer(t, m, func(c *TrainerConfig) { c.MicroBatchTokens, c.Temperature = 75, 0.7 })
			loss.train(t, tr, seqs)
			checkGradients(t, arch.tensors(), m.Weights, tr.gradients, func() float64 { return loss.value(m, seqs) })
		})
	}
}

// TestGradientsOfAdapters does the same for adapters, whose model is merged for
// the differences.
func TestGradientsOfAdapters(t *testing.T) {
	for name, arch := range family() {
		t.Run(name, func(t *testing.T) {
			m := loud(t, arch, 7)
			before := slices.Clone(m.Weights)
			seqs := randomSequences(3, arch.VocabSize, 9, 71, 1, 20)
			loss := testLoss{temperature: 0.7}
			tr := newTrainer(t, m, func(c *TrainerConfig) {
				c.MicroBatchTokens, c.Temperature = 75, 0.7
				c.LoRA.Rank, c.LoRA.Alpha = 3, 5
				if name == "llama" {
					c.LoRA.Targets = []string{"up_proj", "v_proj", "q_proj"}
				}
			})
			shake(tr.adapter, 0.3)
			loss.train(t, tr, seqs)
			checkGradients(t, tr.adapter.tensors(), tr.adapter.Weights, tr.gradients, func() float64 {
				return loss.value(tr.adapter.merge(m, nil), seqs)
			})
			if !slices.Equal(before, m.Weights) {
				t.Error("the frozen model changed")
			}
		})
	}
}

// shake adds noise to an adapter's weights.
func shake(a *Adapter, size float64) {
	random := rand.New(rand.NewPCG(8, 8))
	for i := range a.Weights {
		a.Weights[i] += float32(random.NormFloat64() * size)
	}
}

// TestGradientsAreTheSame has every way to compute a gradient agree, bit for
// bit.
func TestGradientsAreTheSame(t *testing.T) {
	arch := family()["qwen3"]
	arch.AttnBias = true
	seqs := randomSequences(4, arch.VocabSize, 50, 120, 13, 80, 199)
	for _, rank := range []int{0, 4} {
		var first []float32
		for name, change := range map[string]func(*TrainerConfig){
			"one thread":       func(c *TrainerConfig) { c.Threads = 1 },
			"two threads":      func(c *TrainerConfig) { c.Threads = 2 },
			"three threads":    func(c *TrainerConfig) { c.Threads = 3 },
			"recomputation":    func(c *TrainerConfig) { c.Recompute = true },
			"chunks of logits": nil,
		} {
			tr := newTrainer(t, loud(t, arch, 1), func(c *TrainerConfig) {
				c.LoRA.Rank = rank
				if change != nil {
					change(c)
				}
			})
			if change == nil {
				tr.logitBytes = 4 * arch.VocabSize * 16
			}
			if tr.adapter != nil {
				shake(tr.adapter, 0.3)
			}
			testLoss{temperature: 1}.train(t, tr, seqs)
			if first == nil {
				first = slices.Clone(tr.gradients)
			}
			if !slices.Equal(first, tr.gradients) {
				t.Errorf("rank %d: %s: gradients differ", rank, name)
			}
		}
	}
}

// TestScoresDoNotDependOnTheBatch scores sequences alone and together, and
// with other positions masked.
func TestScoresDoNotDependOnTheBatch(t *testing.T) {
	tr := newTrainer(t, loud(t, family()["qwen2"], 1), nil)
	seqs := randomSequences(4, 37, 50, 120, 13)
	together, err := tr.Score(seqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range seqs {
		every := Sequence{Tokens: s.Tokens, Mask: make([]bool, len(s.Mask))}
		for j := range every.Mask {
			every.Mask[j] = j > 0
		}
		alone, err := tr.Score([]Sequence{every})
		if err != nil {
			t.Fatal(err)
		}
		for j, masked := range s.Mask {
			if masked && (alone[0].Logprobs[j] != together[i].Logprobs[j] || alone[0].Entropies[j] != together[i].Entropies[j]) {
				t.Fatalf("sequence %d, position %d: %g alone, %g in the batch", i, j, alone[0].Logprobs[j], together[i].Logprobs[j])
			}
		}
	}
}
