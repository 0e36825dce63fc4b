package lm

import (
	"math/rand/v2"
	"testing"
)

// benchmarkTraining measures full steps: forward, backward, AdamW. masked is
// the share of positions that are trained on. Beside the speed it reports the
// memory for activations, and for what training adds to the model's weights:
// adapters, gradients, moments.
func benchmarkTraining(b *testing.B, arch Architecture, masked float64, lengths []int, change func(*TrainerConfig)) {
	m, err := New(arch.normalised(), rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		b.Fatal(err)
	}
	tr := newTrainer(b, m, change)
	random := rand.New(rand.NewPCG(2, 2))
	seqs := randomSequences(1, arch.VocabSize, lengths...)
	tokens := 0
	for _, s := range seqs {
		tokens += len(s.Tokens)
		for j := range s.Mask {
			s.Mask[j] = j > 0 && random.Float64() < masked
		}
	}
	step := func() {
		if err := tr.Accumulate(seqs, func(_ int, _, grad []float32) { fill(grad, -1e-3) }); err != nil {
			b.Fatal(err)
		}
		tr.Update(1e-4)
	}
	step() // memory is taken
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(b.N)*float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
	trained := len(tr.gradients) + len(tr.moment1) + len(tr.moment2)
	if tr.adapter != nil {
		trained += len(tr.adapter.Weights)
	}
	b.ReportMetric(float64(4*len(tr.memory))/1e6, "activation-MB")
	b.ReportMetric(float64(4*trained)/1e6, "state-MB")
}

func repeat(n, length int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = length
	}
	return list
}

var (
	fiveMillion = Architecture{
		VocabSize: 4096, HiddenSize: 256, IntermediateSize: 688, Layers: 6, Heads: 8, KVHeads: 4, ContextLength: 256, TieEmbeddings: true,
	}
	smolLM135M = Architecture{
		VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3, ContextLength: 512, TieEmbeddings: true,
	}
)

func recompute(c *TrainerConfig) { c.Recompute = true }

func lora(c *TrainerConfig) { c.LoRA.Rank = 16 }

func BenchmarkTrain5M(b *testing.B) {
	b.Run("full", func(b *testing.B) { benchmarkTraining(b, fiveMillion, 1, repeat(8, 256), nil) })
	b.Run("recompute", func(b *testing.B) { benchmarkTraining(b, fiveMillion, 1, repeat(8, 256), recompute) })
	b.Run("lora", func(b *testing.B) { benchmarkTraining(b, fiveMillion, 1, repeat(8, 256), lora) })
}

func BenchmarkTrainSmolLM2(b *testing.B) {
	b.Run("full", func(b *testing.B) { benchmarkTraining(b, smolLM135M, 1, repeat(4, 512), nil) })
	b.Run("recompute", func(b *testing.B) { benchmarkTraining(b, smolLM135M, 1, repeat(4, 512), recompute) })
	b.Run("lora", func(b *testing.B) { benchmarkTraining(b, smolLM135M, 1, repeat(4, 512), lora) })
}

// BenchmarkTrainEpisodes has the shape of the default run: the built-in policy
// and search episodes, in which most tokens are observations.
func BenchmarkTrainEpisodes(b *testing.B) {
	var lengths []int
	random := rand.New(rand.NewPCG(3, 3))
	for range 16 {
		lengths = append(lengths, 300+random.IntN(400))
	}
	benchmarkTraining(b, Tiny(1024), 0.15, lengths, nil)
}
