package lm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// letters is a vocabulary in which token i is one byte.
type letters int

func (letters) TokenBytes(id int32) []byte { return []byte{byte('A' + id)} }
func (v letters) EOS() int32               { return int32(v) }

// start runs an engine until the test ends.
func start(t testing.TB, m *Model, vocab Vocabulary, cfg EngineConfig) *Engine {
	t.Helper()
	e, err := NewEngine(m, 0, vocab, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

// bounded is the default configuration with other bounds.
func bounded(sequences, prefill, threads int) EngineConfig {
	cfg := DefaultEngineConfig()
	cfg.MaxSequences, cfg.PrefillTokens, cfg.Threads = sequences, prefill, threads
	return cfg
}

// TestEngineAgreesWithTrainer plays two turns with an observation in between
// and scores the result with the training path.
func TestEngineAgreesWithTrainer(t *testing.T) {
	m := loud(t, small(true), 11)
	e := start(t, m, letters(-1), DefaultEngineConfig())
	prompt := []int32{3, 1, 4, 1, 5, 9, 2, 6}
	first, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: prompt, MaxTokens: 40, Temperature: 1, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	tokens := append(append([]int32{}, prompt...), first.Tokens...)
	tokens = append(tokens, 7, 8, 9, 10, 11) // an observation
	from := len(tokens)
	second, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: tokens, MaxTokens: 30, Temperature: 1, Seed: 6})
	if err != nil {
		t.Fatal(err)
	}
	tokens = append(tokens, second.Tokens...)
	s := Sequence{Tokens: tokens, Mask: make([]bool, len(tokens))}
	want := make([]float32, len(tokens))
	for i, l := range first.Logprobs {
		s.Mask[len(prompt)+i], want[len(prompt)+i] = true, l
	}
	for i, l := range second.Logprobs {
		s.Mask[from+i], want[from+i] = true, l
	}
	logps, err := newTrainer(t, m, nil).Logprobs([]Sequence{s})
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if math.Abs(float64(logps[0][i]-want[i])) > 1e-4 {
			t.Fatalf("position %d: engine %g, trainer %g", i, want[i], logps[0][i])
		}
	}
}

// TestResultsDoNotDependOnTheBatch plays the same sequences one at a time and
// all at once, with caches that must be evicted, and wants the same bits.
func TestResultsDoNotDependOnTheBatch(t *testing.T) {
	m := loud(t, small(false), 13)
	request := func(i int) policy.Request {
		prompt := []int32{1, 2, 3, int32(i % 3), int32(i)}
		return policy.Request{Session: uint64(i), Context: prompt, MaxTokens: 20 + i, Temperature: 0.8, TopK: 30, TopP: 0.95, Seed: uint64(i)}
	}
	alone := start(t, m, letters(-1), bounded(1, 2, 1))
	together := start(t, m, letters(-1), bounded(8, 16, 2))
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			got, err := together.Generate(t.Context(), request(i))
			if err != nil {
				t.Error(err)
				return
			}
			want, err := alone.Generate(t.Context(), request(i))
			if err != nil {
				t.Error(err)
				return
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("sequence %d:\n together %v\n alone    %v", i, got, want)
			}
		})
	}
	wait.Wait()
}

func TestStops(t *testing.T) {
	m := loud(t, small(true), 17)
	prompt := []int32{1, 2, 3}
	free := start(t, m, letters(-1), DefaultEngineConfig())
	long, err := free.Generate(t.Context(), policy.Request{Session: 1, Context: prompt, MaxTokens: 50, Temperature: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(long.Tokens) != 50 || long.Stop != policy.StopLength {
		t.Fatalf("%d tokens, stop %q: want 50, length", len(long.Tokens), long.Stop)
	}
	var text []byte
	for _, id := range long.Tokens {
		text = append(text, letters(0).TokenBytes(id)...)
	}
	stopped, err := free.Generate(t.Context(), policy.Request{Session: 2, Context: prompt, MaxTokens: 50, Temperature: 1, Stop: []string{"never", string(text[4:7])}})
	if err != nil {
		t.Fatal(err)
	}
	if len(stopped.Tokens) != 7 || stopped.Stop != policy.StopString {
		t.Errorf("stop string over three tokens: %d tokens, stop %q; want 7, stop", len(stopped.Tokens), stopped.Stop)
	}
	eos := start(t, m, letters(long.Tokens[3]), DefaultEngineConfig())
	ended, err := eos.Generate(t.Context(), policy.Request{Session: 1, Context: prompt, MaxTokens: 50, Temperature: 1})
	if err != nil {
		t.Fatal(err)
	}
	if ended.Stop != policy.StopEOS || len(ended.Tokens) > 4 {
		t.Errorf("%d tokens, stop %q: want at most 4, eos", len(ended.Tokens), ended.Stop)
	}
	full, err := free.Generate(t.Context(), policy.Request{Session: 3, Context: make([]int32, 190), MaxTokens: 50, Temperature: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(full.Tokens) != 10 || full.Stop != policy.StopLength {
		t.Errorf("context of 200 with 190 used: %d tokens, stop %q; want 10, length", len(full.Tokens), full.Stop)
	}
}

func TestSwapWeights(t *testing.T) {
	m := loud(t, small(true), 19)
	e := start(t, m, letters(-1), DefaultEngineConfig())
	if err := e.SetWeights(loud(t, small(true), 20), 3); err != nil {
		t.Fatal(err)
	}
	out, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: []int32{1}, MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Versions) != 1 || out.Versions[0].Version != 3 || out.Versions[0].Len() != 5 {
		t.Errorf("versions %v, want one span of 5 tokens by version 3", out.Versions)
	}
	if err := e.SetWeights(m, 3); !errors.Is(err, forager.ErrStale) {
		t.Errorf("same version again: %v, want ErrStale", err)
	}
	if err := e.SetWeights(loud(t, small(false), 1), 4); !errors.Is(err, forager.ErrArchitecture) {
		t.Errorf("another architecture: %v, want ErrArchitecture", err)
	}
}

func TestGenerateIsBounded(t *testing.T) {
	m := loud(t, small(true), 19)
	e, err := NewEngine(m, 0, letters(-1), DefaultEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if _, err := e.Generate(cancelled, policy.Request{Session: 1, Context: []int32{1}, MaxTokens: 5}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
	cancel()
	<-ended
	if _, err := e.Generate(t.Context(), policy.Request{Session: 1, Context: []int32{1}, MaxTokens: 5}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Run: %v, want ErrClosed", err)
	}
}
