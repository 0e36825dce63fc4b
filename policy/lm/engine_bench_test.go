package lm

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/forager-rl/forager/policy"
)

// smolLM2 is the architecture of SmolLM2-135M.
func smolLM2() Architecture {
	return Architecture{
		VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3,
		ContextLength: 8192, RopeTheta: 100000, NormEpsilon: 1e-5, TieEmbeddings: true,
	}.normalised()
}

// workload is a number of calls at once, with different seeds.
type workload struct {
	calls, prompt, common, tokens int
}

// run plays the load once: calls whose prompts begin with the same tokens.
func (l workload) run(b *testing.B, e *Engine, round uint64) {
	var wait sync.WaitGroup
	for i := range l.calls {
		id := round*uint64(l.calls) + uint64(i)
		random := rand.New(rand.NewPCG(round, 1))
		prompt := make([]int32, l.prompt)
		for j := range prompt {
			if j == l.common {
				random = rand.New(rand.NewPCG(id, 2))
			}
			prompt[j] = random.Int32N(int32(e.arch.VocabSize))
		}
		wait.Go(func() {
			if _, err := e.Generate(b.Context(), policy.Request{Session: id, Context: prompt, MaxTokens: l.tokens, Temperature: 1, Seed: id}); err != nil {
				b.Error(err)
			}
			e.Release(id)
		})
	}
	wait.Wait()
}

func benchmarkLoads(b *testing.B, arch Architecture, threads []int, weights []string, loads []workload) {
	m, err := New(arch, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range threads {
		for _, format := range weights {
			for _, l := range loads {
				name := fmt.Sprintf("threads=%d/weights=%s/calls=%d/prompt=%d/common=%d/new=%d", n, format, l.calls, l.prompt, l.common, l.tokens)
				b.Run(name, func(b *testing.B) {
					cfg := DefaultEngineConfig()
					cfg.Threads, cfg.Weights = n, format
					e := start(b, m, letters(-1), cfg)
					workload{calls: 1, prompt: 1, tokens: 1}.run(b, e, 0) // packs the weights
					var round uint64
					for b.Loop() {
						round++
						l.run(b, e, round)
					}
					rounds := float64(b.N)
					b.ReportMetric(rounds*float64(l.calls*l.tokens)/b.Elapsed().Seconds(), "new_tokens/s")
					b.ReportMetric(rounds*float64(l.calls*(l.prompt+l.tokens))/b.Elapsed().Seconds(), "all_tokens/s")
				})
			}
		}
	}
}

// BenchmarkGenerateTiny is the load of an actor with the built-in policy.
func BenchmarkGenerateTiny(b *testing.B) {
	benchmarkLoads(b, Tiny(1024), []int{1, 2}, []string{"float32"}, []workload{
		{calls: 1, prompt: 100, tokens: 50}, {calls: 8, prompt: 100, tokens: 50},
		{calls: 64, prompt: 400, common: 300, tokens: 100}, {calls: 64, prompt: 400, tokens: 100},
	})
}

// BenchmarkGenerateSmolLM2 is prefill, decoding of one and of 16 sequences, and
// a group with a common prompt, with and without its being common.
func BenchmarkGenerateSmolLM2(b *testing.B) {
	benchmarkLoads(b, smolLM2(), []int{2}, []string{"float32", "bfloat16"}, []workload{
		{calls: 1, prompt: 512, tokens: 1}, {calls: 1, prompt: 1, tokens: 32}, {calls: 16, prompt: 1, tokens: 32},
		{calls: 8, prompt: 1000, common: 1000, tokens: 32}, {calls: 8, prompt: 1000, tokens: 32},
	})
}
