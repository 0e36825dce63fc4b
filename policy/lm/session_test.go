package lm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// byHand is an engine whose steps the test makes itself.
type byHand struct {
	*Engine
	t    testing.TB
	wait sync.WaitGroup
	out  []policy.Completion
}

func handle(t testing.TB, m *Model, cfg EngineConfig) *byHand {
	t.Helper()
	e, err := NewEngine(m, 0, letters(-1), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkers(cfg.Threads)
	t.Cleanup(w.close)
	e.forward.start(w)
	return &byHand{Engine: e, t: t}
}

// submit hands over calls and waits until all of them are queued, in order.
func (h *byHand) submit(requests ...policy.Request) {
	for _, r := range requests {
		i := len(h.out)
		h.out = append(h.out, policy.Completion{})
		c := h.newCall(context.Background(), r)
		h.queue = append(h.queue, c)
		h.wait.Go(func() {
			if err := <-c.finished; err != nil {
				h.t.Error(err)
			}
			h.out[i] = c.out
		})
	}
}

// steps makes n steps, or all that are left.
func (h *byHand) steps(n int) {
	for ; n != 0; n-- {
		h.receive()
		if used, limit := h.cache.used+h.cache.promised, h.cache.limit; used > limit {
			h.t.Fatalf("%d pages in use or promised, of %d", used, limit)
		}
		if len(h.active) == 0 {
			break
		}
		h.step()
	}
	if n < 0 {
		h.wait.Wait()
		h.receive()
	}
}

func tokens(n int, seed int32) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = (int32(i)*7 + seed) % 37
	}
	return list
}

// group is requests of sessions 1, 2, ... with one context and different seeds.
func group(size int, context []int32, most int) []policy.Request {
	var list []policy.Request
	for i := range size {
		list = append(list, policy.Request{Session: uint64(i + 1), Context: context, MaxTokens: most, Temperature: 1, Seed: uint64(i)})
	}
	return list
}

// alone gives the completion of a request by an engine that does nothing else.
func alone(t testing.TB, m *Model, r policy.Request) policy.Completion {
	h := handle(t, m, bounded(1, 5, 1))
	h.submit(r)
	h.steps(-1)
	return h.out[0]
}

func wantSame(t *testing.T, name string, got, want policy.Completion) {
	t.Helper()
	if fmt.Sprint(got.Tokens, got.Logprobs, got.Stop) != fmt.Sprint(want.Tokens, want.Logprobs, want.Stop) {
		t.Errorf("%s:\n got  %v\n want %v", name, got, want)
	}
}

// TestGroupComputesItsPromptOnce submits a group at once; prompts end in, at
// and after the end of a page.
func TestGroupComputesItsPromptOnce(t *testing.T) {
	m := loud(t, small(true), 31)
	for _, n := range []int{2, pageTokens - 1, pageTokens, pageTokens + 1, pageTokens + 2, pageTokens + 20} {
		h := handle(t, m, bounded(8, 50, 2))
		requests := group(5, tokens(n, 3), 12)
		h.submit(requests...)
		h.steps(-1)
		if got, want := h.counts.Prefilled, uint64(n+4); got != want {
			t.Errorf("prompt of %d tokens for 5 sequences: %d tokens processed, want %d", n, got, want)
		}
		if full := (n - 1) / pageTokens; h.cache.used != full+5*(pagesFor(n+11)-full) {
			t.Errorf("prompt of %d tokens for 5 sequences: %d pages", n, h.cache.used)
		}
		for i, r := range requests {
			wantSame(t, fmt.Sprintf("prompt of %d, sequence %d", n, i), h.out[i], alone(t, m, r))
		}
	}
}

// TestTurnsProcessNewTokensOnly continues sessions of a group after an
// observation, and one of them from before it diverged.
func TestTurnsProcessNewTokensOnly(t *testing.T) {
	m := loud(t, small(false), 37)
	h := handle(t, m, bounded(8, 50, 1))
	prompt := tokens(pageTokens+10, 3)
	h.submit(group(3, prompt, 8)...)
	h.steps(-1)
	before := h.counts.Prefilled
	for i := range 2 {
		context := slices.Concat(prompt, h.out[i].Tokens, []int32{1, 2, 3, 4, 5})
		r := policy.Request{Session: uint64(i + 1), Context: context, MaxTokens: 6, Temperature: 1, Seed: 9}
		h.submit(r)
		h.steps(-1)
		wantSame(t, "second turn", h.out[len(h.out)-1], alone(t, m, r))
	}
	if got := h.counts.Prefilled - before; got != 2*6 { // the last sampled token and the observation
		t.Errorf("%d tokens processed for two observations of 5", got)
	}
	edited := slices.Concat(prompt[:30], []int32{9, 9}, prompt[32:])
	r := policy.Request{Session: 1, Context: edited, MaxTokens: 6, Temperature: 1, Seed: 9}
	h.submit(r)
	h.steps(-1)
	wantSame(t, "edited context", h.out[len(h.out)-1], alone(t, m, r))
	other := policy.Request{Session: 2, Context: slices.Concat(prompt, h.out[1].Tokens), MaxTokens: 6, Temperature: 1, Seed: 3}
	h.submit(other)
	h.steps(-1)
	wantSame(t, "session that shared the edited page", h.out[len(h.out)-1], alone(t, m, other))
}

// TestOldKeysAreNotShared swaps weights while a group's prompt is computed. The
// sequence that began goes on; the others and later ones begin again.
func TestOldKeysAreNotShared(t *testing.T) {
	old, young := loud(t, small(true), 41), loud(t, small(true), 43)
	h := handle(t, old, bounded(8, 10, 1))
	prompt := tokens(100, 3)
	requests := group(4, prompt, 20)
	h.submit(requests[:3]...)
	h.steps(4)
	if len(h.active) != 1 || len(h.waiting) != 2 {
		t.Fatalf("%d calls are active and %d wait for the prefix, want 1 and 2", len(h.active), len(h.waiting))
	}
	if err := h.SetWeights(young, 1); err != nil {
		t.Fatal(err)
	}
	h.steps(-1)
	h.submit(requests[3])
	h.steps(-1)
	for i := 1; i < 4; i++ {
		wantSame(t, fmt.Sprintf("sequence %d, begun after the swap", i), h.out[i], alone(t, young, requests[i]))
	}
	if got, want := h.counts.Prefilled, uint64(100+100+1+1); got != want {
		t.Errorf("%d tokens processed, want %d: the prompt once for each version", got, want)
	}
	if slices.Equal(h.out[0].Logprobs, alone(t, young, requests[0]).Logprobs) {
		t.Error("the first sequence's old keys and values were computed again, or the test's weights are too much alike")
	}
}

// TestCacheIsBounded plays more sequences than the cache holds.
func TestCacheIsBounded(t *testing.T) {
	m := loud(t, small(true), 47)
	cfg := bounded(12, 40, 2)
	cfg.CacheBytes = 5 * newCache(m.Arch, 0).pageBytes()
	h := handle(t, m, cfg)
	var requests []policy.Request
	for i := range 12 {
		r := policy.Request{Session: uint64(i), Context: tokens(100+i, int32(i%5)), MaxTokens: 10 + 8*i, Temperature: 1, Seed: uint64(i)}
		requests = append(requests, r)
	}
	h.submit(requests...)
	h.steps(-1)
	for i, r := range requests {
		wantSame(t, fmt.Sprintf("sequence %d", i), h.out[i], alone(t, m, r))
		h.Release(r.Session)
	}
	h.receive()
	if h.cache.used != 0 || h.cache.promised != 0 || len(h.sessions) != 0 {
		t.Errorf("after all: %d pages used, %d promised, %d sessions", h.cache.used, h.cache.promised, len(h.sessions))
	}
	cfg.CacheBytes = 1000
	if _, err := NewEngine(m, 0, letters(-1), cfg); err == nil {
		t.Error("a cache of 1000 bytes was accepted")
	}
}

// TestReleaseDuringCall releases a session that is in use, and uses one twice.
func TestReleaseDuringCall(t *testing.T) {
	m := loud(t, small(true), 53)
	h := handle(t, m, bounded(4, 40, 1))
	r := group(1, tokens(20, 1), 10)[0]
	h.submit(r, r)
	h.steps(3)
	h.Release(r.Session)
	h.steps(-1)
	for _, out := range h.out {
		wantSame(t, "released session", out, alone(t, m, r))
	}
	if h.cache.used != 0 {
		t.Errorf("%d pages are left", h.cache.used)
	}
}

// mute is a vocabulary without allocations.
type mute []byte

func (m mute) TokenBytes(int32) []byte { return m }
func (m mute) EOS() int32              { return 5 }

// TestStepsDoNotAllocate decodes with everything a request can ask for, once
// all buffers have their size.
func TestStepsDoNotAllocate(t *testing.T) {
	m := loud(t, small(true), 59)
	h := handle(t, m, bounded(4, 40, 2))
	h.vocab = mute("ab")
	submit := func() {
		for i := range 4 {
			h.submit(policy.Request{
				Session: uint64(i), Context: tokens(10, int32(i)), MaxTokens: 150, MinTokens: 140, Stop: []string{"never said"},
				StopTokens: []int32{3}, Temperature: 0.9, TopK: 20, TopP: float32(i) / 4, Seed: uint64(i),
			})
		}
	}
	submit()
	h.steps(-1)
	submit()
	h.steps(5)
	if n := testing.AllocsPerRun(100, func() { h.steps(1) }); n > 0 {
		t.Errorf("%g allocations a step", n)
	}
	h.steps(-1)
}

// TestSwapWhileGenerating swaps weights under running sequences, as a learner
// does; the race detector watches.
func TestSwapWhileGenerating(t *testing.T) {
	e := start(t, loud(t, small(true), 61), letters(-1), bounded(4, 20, 2))
	stop := make(chan struct{})
	swapped := make(chan error, 1)
	go func() {
		for v := forager.Version(1); ; v++ {
			select {
			case <-stop:
				swapped <- nil
				return
			default:
			}
			if err := e.SetWeights(loud(t, small(true), 61+uint64(v)), v); err != nil {
				swapped <- err
				return
			}
		}
	}()
	var wait sync.WaitGroup
	for _, r := range group(8, tokens(60, 2), 100) {
		wait.Go(func() {
			out, err := e.Generate(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			end, last := int32(0), forager.Version(0)
			for i, v := range out.Versions {
				if v.Start != end || i > 0 && v.Version <= last {
					t.Errorf("versions %v", out.Versions)
				}
				end, last = v.End, v.Version
			}
			if int(end) != len(out.Tokens) {
				t.Errorf("versions %v for %d tokens", out.Versions, len(out.Tokens))
			}
		})
	}
	wait.Wait()
	close(stop)
	if err := <-swapped; err != nil {
		t.Error(err)
	}
}
