package lm_test

import (
	"context"
	"math"
	"sync"
	"testing"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/lm"
)

// gap compares the log-probabilities of sampled tokens in the engine with those
// in the trainer. The importance ratio of a token is exp(trainer - engine).
type gap struct {
	tokens       int
	mean, most   float64 // of the absolute difference
	ratio        float64 // mean importance ratio: 1 if unbiased
	effective    float64 // share of the samples that importance weights leave: (Σr)²/(n·Σr²)
	mostSequence float64 // greatest absolute sum of differences over one sequence
}

// measureGap samples sequences of at most most tokens after a prompt.
func measureGap(t *testing.T, m *lm.Model, vocab lm.Vocabulary, weights string, prompts [][]int32, most int) gap {
	cfg := lm.DefaultEngineConfig()
	cfg.Weights, cfg.Threads = weights, 2
	e, err := lm.NewEngine(m, 0, vocab, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	outs := make([]policy.Completion, len(prompts))
	seqs := make([]lm.Sequence, len(prompts))
	var wait sync.WaitGroup
	for i, prompt := range prompts {
		wait.Go(func() {
			out, err := e.Generate(ctx, policy.Request{Session: uint64(i), Context: prompt, MaxTokens: most, Temperature: 1, Seed: uint64(i)})
			if err != nil {
				t.Error(err)
			}
			outs[i] = out
			s := lm.Sequence{Tokens: append(append([]int32{}, prompt...), out.Tokens...)}
			s.Mask = make([]bool, len(s.Tokens))
			for j := range out.Tokens {
				s.Mask[len(prompt)+j] = true
			}
			seqs[i] = s
		})
	}
	wait.Wait()
	tr, err := lm.NewTrainer(m, lm.DefaultTrainerConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	logps, err := tr.Logprobs(seqs)
	if err != nil {
		t.Fatal(err)
	}
	var g gap
	squares := 0.0
	for i, out := range outs {
		sum := 0.0
		for j, l := range out.Logprobs {
			d := float64(logps[i][len(prompts[i])+j]) - float64(l)
			g.tokens++
			g.mean += math.Abs(d)
			g.most = max(g.most, math.Abs(d))
			g.ratio += math.Exp(d)
			squares += math.Exp(2 * d)
			sum += d
		}
		g.mostSequence = max(g.mostSequence, math.Abs(sum))
	}
	n := float64(g.tokens)
	g.effective = g.ratio * g.ratio / (n * squares)
	g.mean, g.ratio = g.mean/n, g.ratio/n
	return g
}

// TestImportanceRatio bounds what each format of the weights costs the learner,
// for the built-in policy.
func TestImportanceRatio(t *testing.T) {
	m, tok, err := builtin.Load()
	if err != nil {
		t.Fatal(err)
	}
	var prompts [][]int32
	for range 8 {
		for _, q := range []string{"Question: where was the author of this book born?", "who directed it", "<search>"} {
			prompts = append(prompts, tok.Encode(q))
		}
	}
	for _, c := range []struct {
		weights           string
		mean, most, apart float64
	}{
		{"float32", 1e-5, 2e-4, 1e-4},
		{"bfloat16", 0.02, 0.5, 0.02},
	} {
		g := measureGap(t, m, tok, c.weights, prompts, 100)
		t.Logf("%s: %+v", c.weights, g)
		if g.tokens < 100 || !(g.mean <= c.mean) || !(g.most <= c.most) || !(math.Abs(g.ratio-1) <= c.apart) {
			t.Errorf("%s: log-probabilities are further apart than %+v: %+v", c.weights, c, g)
		}
	}
}
