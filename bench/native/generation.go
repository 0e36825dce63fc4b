package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm"
)

// endless is a vocabulary without text and without an end, so that every
// completion has the length that was asked for.
type endless struct{}

func (endless) TokenBytes(int32) []byte { return nil }
func (endless) EOS() int32              { return -1 }

// generation times the engine through its public interface, sampling and
// log-probabilities included.
type generation struct {
	engine *lm.Engine
	vocab  int
	stop   context.CancelFunc
	ended  chan error
	next   uint64 // session
}

func newGeneration(args []string) (*generation, error) {
	cfg := lm.DefaultEngineConfig()
	flags := flag.NewFlagSet("generation", flag.ContinueOnError)
	model := flags.String("model", "", "Hugging Face folder or GGUF file")
	flags.StringVar(&cfg.Weights, "weights", cfg.Weights, "format of the engine's weights")
	flags.IntVar(&cfg.Threads, "threads", 2, "cores to use")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	m, err := lm.Load(*model)
	if err != nil {
		return nil, err
	}
	engine, err := lm.NewEngine(m, 0, endless{}, cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &generation{engine: engine, vocab: m.Arch.VocabSize, stop: stop, ended: make(chan error, 1)}
	go func() { g.ended <- engine.Run(ctx) }()
	return g, nil
}

func (g *generation) close() error {
	g.stop()
	return <-g.ended
}

func (g *generation) run(req request) (result, error) {
	random := rand.New(rand.NewPCG(req.Seed, 1))
	prompts := make([][]int32, req.Batch)
	for i := range prompts {
		prompts[i] = make([]int32, req.Prompt)
		for j := range prompts[i] {
			prompts[i][j] = random.Int32N(int32(g.vocab))
		}
		if req.Case == "group" && req.Shared {
			prompts[i] = prompts[0]
		}
	}
	first := g.next
	g.next += uint64(req.Batch)
	defer func() {
		for s := first; s < g.next; s++ {
			g.engine.Release(s)
		}
	}()
	switch req.Case {
	case "prefill": // every prompt, one token each
		seconds, _, err := g.generate(first, prompts, 1)
		return result{Tokens: req.Batch * req.Prompt, Seconds: seconds}, err
	case "decode": // the prompts are in the cache
		_, out, err := g.generate(first, prompts, 1)
		if err != nil {
			return result{}, err
		}
		for i := range prompts {
			prompts[i] = append(prompts[i], out[i].Tokens...)
		}
		seconds, _, err := g.generate(first, prompts, req.New)
		return result{Tokens: req.Batch * req.New, Seconds: seconds}, err
	case "group": // prompts and completions
		seconds, _, err := g.generate(first, prompts, req.New)
		return result{Tokens: req.Batch * req.New, Seconds: seconds}, err
	}
	return result{}, errors.New("unknown case")
}

// generate continues all prompts at once and tells how long that took.
func (g *generation) generate(first uint64, prompts [][]int32, tokens int) (float64, []policy.Completion, error) {
	out := make([]policy.Completion, len(prompts))
	failed := make(chan error, len(prompts))
	start := time.Now()
	for i, prompt := range prompts {
		go func() {
			var err error
			out[i], err = g.engine.Generate(context.Background(), policy.Request{
				Session: first + uint64(i), Context: prompt, MaxTokens: tokens, Temperature: 1, Seed: uint64(i),
			})
			if err == nil && len(out[i].Tokens) != tokens {
				err = fmt.Errorf("got %d tokens, want %d: %s", len(out[i].Tokens), tokens, out[i].Stop)
			}
			failed <- err
		}()
	}
	var err error
	for range prompts {
		err = errors.Join(err, <-failed)
	}
	return time.Since(start).Seconds(), out, err
}
