package lm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/lm/kernel"
)

// EngineConfig bounds an Engine.
type EngineConfig struct {
	// MaxSequences is the number of sequences that are continued at once;
	// further calls wait.
	MaxSequences int `mapstructure:"max_sequences"`
	// PrefillTokens bounds the context tokens processed in one step, so that a
	// long prompt does not hold up the sequences that are being decoded.
	PrefillTokens int `mapstructure:"prefill_tokens"`
	// CacheBytes bounds the memory for keys and values. Memory is taken when it
	// is first needed. A call waits until its longest outcome fits; idle
	// sessions make room, the longest idle first. A sequence that would not fit
	// alone ends with reason "length".
	CacheBytes int64 `mapstructure:"cache_bytes"`
	// Weights is the format of the weights: "float32", or "bfloat16" for large
	// models, which halves their memory and the time of few sequences.
	// Log-probabilities then differ from the trainer's by 0.002 to 0.01 on
	// average, and importance weights keep 99.98 % of the effective sample.
	Weights string `mapstructure:"weights"`
	// Threads is the number of cores to use; 0 means all.
	Threads int `mapstructure:"threads"`
}

// DefaultEngineConfig suits one actor on one core.
func DefaultEngineConfig() EngineConfig {
	return EngineConfig{MaxSequences: 64, PrefillTokens: 1024, CacheBytes: 1 << 30, Weights: kernel.Float32.String(), Threads: 1}
}

// Validate reports the first setting out of range.
func (c EngineConfig) Validate() error {
	switch {
	case c.MaxSequences < 1:
		return fmt.Errorf("max_sequences is %d, want at least 1", c.MaxSequences)
	case c.PrefillTokens < 1:
		return fmt.Errorf("prefill_tokens is %d, want at least 1", c.PrefillTokens)
	case c.CacheBytes < 1:
		return fmt.Errorf("cache_bytes is %d, want at least 1", c.CacheBytes)
	case c.Threads < 0:
		return fmt.Errorf("threads is %d, want 0 or more", c.Threads)
	}
	if _, err := kernel.ParseFormat(c.Weights); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	return nil
}

// Vocabulary is what the engine needs of a tokenizer: the bytes of a token, to
// find stop strings, and the token that ends a sequence, or -1.
type Vocabulary interface {
	TokenBytes(id int32) []byte
	EOS() int32
}

// ErrClosed is what Generate returns when the engine's Run has ended.
var ErrClosed = errors.New("generation engine has stopped")

// Engine continues token sequences by continuous batching: every step decodes
// one token of each active sequence and prefills contexts that are new, in one
// batch. It implements policy.Generator. Calls are served while Run runs.
//
// Keys and values are cached in pages. Sequences with a common beginning share
// its pages, also when they arrive together: one of them computes the beginning
// and the others wait for it. A session's pages are kept between its calls, so
// that only new tokens are processed.
//
// Weights are swapped between tokens. Sequences go on with the keys and values
// that older weights computed, as in PipelineRL (arXiv
// 2509.19128): log-probabilities are recorded as sampled, so importance weights
// stay right. Sessions that begin after a swap share nothing computed before.
//
// The log-probability of a token does not depend on the batch it was decoded
// in, because the kernels' order of additions does not.
type Engine struct {
	cfg   EngineConfig
	arch  Architecture
	vocab Vocabulary
	limit int // positions of one sequence

	slots chan struct{} // one per call in progress
	wake  chan struct{} // capacity 1
	done  chan struct{} // closed when Run ends
	once  sync.Once

	mu       sync.Mutex
	queue    []*call // at most cap(slots)
	released []uint64
	weights  *Model // to be swapped in, or nil
	version  forager.Version
	stats    EngineStats

	// Owned by Run.
	current  forager.Version
	forward  *forwardPass
	cache    *cache
	sessions map[uint64]*session
	waiting  []*call // for room in the cache, or for a prefix; at most cap(slots)
	active   []*call
	clock    uint64
	batch    batch
	counts   EngineStats
}

// EngineStats counts an engine's work since it started.
type EngineStats struct {
	Prefilled  uint64 // context tokens that were processed
	Reused     uint64 // context tokens whose keys and values were in the cache
	Sampled    uint64 // new tokens
	CacheBytes int64  // memory of the pages in use now
}

// call is one Generate in progress.
type call struct {
	req      policy.Request
	ctx      context.Context //nolint:containedctx // the request's own, checked between tokens
	finished chan error
	out      policy.Completion
	stops    stopStrings
	enders   []int32 // tokens that end the completion

	leader *call // computes the first prefix tokens of the context; waited for
	prefix int

	session   *session
	promised  int // pages
	processed int // context and new tokens that are in the session's cache
}

// NewEngine prepares an engine for models of m's architecture, starting with
// its weights as the given version. m must not be changed afterwards.
func NewEngine(m *Model, version forager.Version, vocab Vocabulary, cfg EngineConfig) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	format, err := kernel.ParseFormat(cfg.Weights)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	cache := newCache(m.Arch, cfg.CacheBytes)
	if cache.limit < 2 {
		return nil, forager.WithHint(
			fmt.Errorf("cache_bytes is %d, the smallest cache of this model takes %d", cfg.CacheBytes, 2*cache.pageBytes()),
			"raise policy.engine.cache_bytes")
	}
	limit := min(m.Arch.ContextLength, (cache.limit-1)*pageTokens) // one page is for a copy
	return &Engine{
		cfg: cfg, arch: m.Arch, vocab: vocab, limit: limit,
		slots: make(chan struct{}, cfg.MaxSequences), wake: make(chan struct{}, 1), done: make(chan struct{}),
		weights: m, version: version, cache: cache, sessions: map[uint64]*session{},
		forward: newForwardPass(m.Arch, limit, cache, format),
	}, nil
}

// SetWeights swaps in the weights of m before the next token of every sequence.
// The engine reads m then, so m must not be changed afterwards. A version that
// is not newer is refused with forager.ErrStale, another architecture with
// forager.ErrArchitecture.
func (e *Engine) SetWeights(m *Model, version forager.Version) error {
	if !e.arch.sameShape(m.Arch) {
		return fmt.Errorf("swap weights: have %s, got %s: %w", e.arch, m.Arch, forager.ErrArchitecture)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if version <= e.version {
		return fmt.Errorf("swap weights: have version %d, got %d: %w", e.version, version, forager.ErrStale)
	}
	e.weights, e.version = m, version
	e.poke()
	return nil
}

// Version is the newest version handed to the engine.
func (e *Engine) Version() forager.Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.version
}

// Stats is the work done so far.
func (e *Engine) Stats() EngineStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// Generate implements policy.Generator. It waits for a free slot, for room in
// the cache, for Run to continue the sequence, or for ctx.
func (e *Engine) Generate(ctx context.Context, req policy.Request) (policy.Completion, error) {
	if err := e.check(req); err != nil {
		return policy.Completion{}, fmt.Errorf("generate: %w", err)
	}
	if len(req.Context) >= e.limit {
		return policy.Completion{Stop: policy.StopLength}, nil
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return policy.Completion{}, fmt.Errorf("wait for a generation slot: %w", ctx.Err())
	case <-e.done:
		return policy.Completion{}, ErrClosed
	}
	c := e.newCall(ctx, req)
	e.mu.Lock()
	e.queue = append(e.queue, c)
	e.mu.Unlock()
	e.poke()
	select {
	case err := <-c.finished: // Run answers every call, also when ctx is done
		return c.out, err
	case <-e.done:
		return policy.Completion{}, ErrClosed
	}
}

func (e *Engine) check(req policy.Request) error {
	switch {
	case len(req.Context) == 0:
		return errors.New("empty context")
	case req.MaxTokens < 1:
		return fmt.Errorf("max tokens is %d, want at least 1", req.MaxTokens)
	case req.MinTokens < 0 || req.MinTokens > req.MaxTokens:
		return fmt.Errorf("min tokens is %d, want 0 to max tokens, %d", req.MinTokens, req.MaxTokens)
	}
	for _, id := range req.Context {
		if id < 0 || int(id) >= e.arch.VocabSize {
			return fmt.Errorf("token %d is not in the vocabulary of %d", id, e.arch.VocabSize)
		}
	}
	return nil
}

func (e *Engine) newCall(ctx context.Context, req policy.Request) *call {
	c := &call{req: req, ctx: ctx, finished: make(chan error, 1), stops: newStopStrings(req.Stop)}
	for _, id := range append([]int32{e.vocab.EOS()}, req.StopTokens...) {
		if id >= 0 && int(id) < e.arch.VocabSize {
			c.enders = append(c.enders, id)
		}
	}
	most := min(req.MaxTokens, e.limit-len(req.Context))
	c.out.Tokens, c.out.Logprobs = make([]int32, 0, most), make([]float32, 0, most)
	return c
}

// Release implements policy.Generator.
func (e *Engine) Release(id uint64) {
	e.mu.Lock()
	e.released = append(e.released, id)
	e.mu.Unlock()
	e.poke()
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run serves calls until ctx is done. It may run once.
func (e *Engine) Run(ctx context.Context) error {
	defer e.once.Do(func() { close(e.done) })
	workers := newWorkers(e.cfg.Threads)
	defer workers.close()
	e.forward.start(workers)
	for {
		e.receive()
		if len(e.active) == 0 {
			select {
			case <-e.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		e.step()
	}
}

// receive takes over what arrived since the last step: weights, calls, releases.
// Calls come first, so that those who wait for a prefix get it before its owner
// is gone.
func (e *Engine) receive() {
	e.counts.CacheBytes = int64(e.cache.used) * e.cache.pageBytes()
	e.mu.Lock()
	e.stats = e.counts
	weights, version := e.weights, e.version
	released := e.released
	e.waiting = append(e.waiting, e.queue...)
	clear(e.queue)
	e.weights, e.queue, e.released = nil, e.queue[:0], nil
	e.mu.Unlock()
	if weights != nil {
		e.forward.load(weights)
		e.current = version
		for _, s := range e.sessions {
			s.stale = len(s.tokens) > 0
		}
	}
	e.admit()
	for _, id := range released {
		e.release(id)
	}
	if len(released) > 0 {
		e.admit()
	}
}
