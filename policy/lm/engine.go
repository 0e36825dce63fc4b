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
	// MaxSequences is the number of sequences that are continued at once and
	// the number of KV caches that are kept, idle sessions included; further
	// calls wait, and the longest idle cache makes room.
	MaxSequences int `mapstructure:"max_sequences"`
	// PrefillTokens bounds the context tokens processed in one step, so that a
	// long prompt does not hold up the sequences that are being decoded.
	PrefillTokens int `mapstructure:"prefill_tokens"`
	// Threads is the number of cores to use; 0 means all.
	Threads int `mapstructure:"threads"`
}

// DefaultEngineConfig suits one actor on one core.
func DefaultEngineConfig() EngineConfig {
	return EngineConfig{MaxSequences: 64, PrefillTokens: 1024, Threads: 1}
}

// Validate reports the first setting out of range.
func (c EngineConfig) Validate() error {
	switch {
	case c.MaxSequences < 1:
		return fmt.Errorf("max_sequences is %d, want at least 1", c.MaxSequences)
	case c.PrefillTokens < 1:
		return fmt.Errorf("prefill_tokens is %d, want at least 1", c.PrefillTokens)
	case c.Threads < 0:
		return fmt.Errorf("threads is %d, want 0 or more", c.Threads)
	}
	return nil
}

// Vocabulary is what the engine needs of a tokenizer: the bytes of a token, to
// find stop strings, and the token that ends a sequence.
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
// The log-probability of a token does not depend on the batch it was decoded
// in, because the kernels' order of additions does not.
type Engine struct {
	cfg   EngineConfig
	arch  Architecture
	vocab Vocabulary
	rope  rope

	slots chan struct{} // one per call in progress
	wake  chan struct{} // capacity 1
	done  chan struct{} // closed when Run ends
	once  sync.Once

	mu       sync.Mutex
	queue    []*call // at most cap(slots)
	released []uint64
	weights  *Model // to be swapped in, or nil
	version  forager.Version

	// Owned by Run.
	current  forager.Version
	packed   packedModel
	workers  *workers
	sessions map[uint64]*session
	spare    []*session
	active   []*call
	clock    uint64
	batch    batch
}

// call is one Generate in progress.
type call struct {
	req       policy.Request
	ctx       context.Context //nolint:containedctx // the request's own, checked between tokens
	finished  chan error
	out       policy.Completion
	text      []byte
	session   *session
	processed int // context and new tokens that are in the session's cache
}

// NewEngine prepares an engine for models of m's architecture, starting with
// its weights as the given version.
func NewEngine(m *Model, version forager.Version, vocab Vocabulary, cfg EngineConfig) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Engine{
		cfg: cfg, arch: m.Arch, vocab: vocab, rope: newRope(m.Arch),
		slots: make(chan struct{}, cfg.MaxSequences), wake: make(chan struct{}, 1), done: make(chan struct{}),
		weights: m.Clone(), version: version, sessions: map[uint64]*session{},
	}, nil
}

// SetWeights swaps in the weights of m, which the engine copies, before the
// next token of every sequence. Sequences go on; their KV caches keep what
// older weights computed. A version that is not newer is refused with
// forager.ErrStale, another architecture with forager.ErrArchitecture.
func (e *Engine) SetWeights(m *Model, version forager.Version) error {
	if !e.arch.sameShape(m.Arch) {
		return fmt.Errorf("swap weights: have %s, got %s: %w", e.arch, m.Arch, forager.ErrArchitecture)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if version <= e.version {
		return fmt.Errorf("swap weights: have version %d, got %d: %w", e.version, version, forager.ErrStale)
	}
	e.weights, e.version = m.Clone(), version
	return nil
}

// Version is the newest version handed to the engine.
func (e *Engine) Version() forager.Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.version
}

// Generate implements policy.Generator. It waits for a free slot, for Run to
// continue the sequence, or for ctx.
func (e *Engine) Generate(ctx context.Context, req policy.Request) (policy.Completion, error) {
	switch {
	case len(req.Context) == 0:
		return policy.Completion{}, errors.New("generate: empty context")
	case req.MaxTokens < 1:
		return policy.Completion{}, fmt.Errorf("generate: max tokens is %d, want at least 1", req.MaxTokens)
	case len(req.Context) >= e.arch.ContextLength:
		return policy.Completion{Stop: policy.StopLength}, nil
	}
	for _, id := range req.Context {
		if id < 0 || int(id) >= e.arch.VocabSize {
			return policy.Completion{}, fmt.Errorf("generate: token %d is not in the vocabulary of %d", id, e.arch.VocabSize)
		}
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return policy.Completion{}, fmt.Errorf("wait for a generation slot: %w", ctx.Err())
	case <-e.done:
		return policy.Completion{}, ErrClosed
	}
	c := &call{req: req, ctx: ctx, finished: make(chan error, 1)}
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
	e.workers = newWorkers(e.cfg.Threads)
	defer e.workers.close()
	defer e.once.Do(func() { close(e.done) })
	for {
		e.admit()
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

// admit takes over what arrived since the last step: weights, releases, calls.
func (e *Engine) admit() {
	e.mu.Lock()
	weights, version := e.weights, e.version
	queue, released := e.queue, e.released
	e.weights, e.queue, e.released = nil, nil, nil
	e.mu.Unlock()
	if weights != nil {
		e.packed.load(weights)
		e.current = version
	}
	for _, id := range released {
		if s := e.sessions[id]; s != nil {
			delete(e.sessions, id)
			e.spare = append(e.spare, s)
		}
	}
	for _, c := range queue {
		c.session = e.sessionFor(c.req)
		c.session.busy = true
		c.processed = len(c.session.tokens)
		e.active = append(e.active, c)
	}
}

// sessionFor finds or makes the KV cache of a request and cuts it to the part
// that agrees with the request's context. The last token is always processed
// again: its hidden state predicts the next one.
func (e *Engine) sessionFor(req policy.Request) *session {
	e.clock++
	s := e.sessions[req.Session]
	if s != nil && s.busy {
		s = nil // two calls of one session at once: the later one gets a cache of its own
	}
	if s == nil {
		if len(e.sessions) >= e.cfg.MaxSequences {
			e.evict()
		}
		if n := len(e.spare); n > 0 {
			s, e.spare = e.spare[n-1], e.spare[:n-1]
			s.tokens = s.tokens[:0]
		} else {
			s = newSession(e.arch)
		}
		e.sessions[req.Session] = s
		if donor := e.longestPrefix(req.Context, s); donor != nil {
			s.copyPrefix(donor, min(commonPrefix(donor.tokens, req.Context), len(req.Context)-1))
		}
	}
	s.used = e.clock
	s.tokens = s.tokens[:min(commonPrefix(s.tokens, req.Context), len(req.Context)-1)]
	return s
}

// longestPrefix finds the session that holds most of the context, so that the
// samples of a group share the work on their prompt.
func (e *Engine) longestPrefix(context []int32, except *session) *session {
	var best *session
	most := 0
	for _, s := range e.sessions {
		if s == except {
			continue
		}
		if n := commonPrefix(s.tokens, context); n > most {
			best, most = s, n
		}
	}
	return best
}

func (e *Engine) evict() {
	var oldest uint64
	found := false
	for id, s := range e.sessions {
		if !s.busy && (!found || s.used < e.sessions[oldest].used) {
			oldest, found = id, true
		}
	}
	if found {
		e.spare = append(e.spare, e.sessions[oldest])
		delete(e.sessions, oldest)
	}
}

// step runs one batch: context tokens of new calls up to the prefill bound, the
// last token of all others, and samples a token for every sequence whose
// context is complete.
func (e *Engine) step() {
	b := &e.batch
	b.reset()
	budget := e.cfg.PrefillTokens
	live := e.active[:0]
	for _, c := range e.active {
		if err := c.ctx.Err(); err != nil {
			e.finish(c, fmt.Errorf("generate: %w", err))
			continue
		}
		live = append(live, c)
		todo := len(c.req.Context) + len(c.out.Tokens) - c.processed
		n := min(todo, max(1, budget))
		if todo > 1 {
			budget -= n
		}
		for range n {
			b.add(c.session, c.processed, c.token(c.processed))
			c.processed++
		}
		if n == todo {
			b.sample = append(b.sample, len(b.rows)-1)
			b.calls = append(b.calls, c)
		}
	}
	clear(e.active[len(live):])
	e.active = live
	if len(b.rows) == 0 {
		return
	}
	logits := e.packed.forward(e.workers, e.rope, b)
	for i, c := range b.calls {
		e.extend(c, logits[i*e.arch.VocabSize:][:e.arch.VocabSize])
	}
	live = e.active[:0]
	for _, c := range e.active {
		if c.out.Stop == "" {
			live = append(live, c)
		} else {
			e.finish(c, nil)
		}
	}
	clear(e.active[len(live):])
	e.active = live
}

func (c *call) token(i int) int32 {
	if i < len(c.req.Context) {
		return c.req.Context[i]
	}
	return c.out.Tokens[i-len(c.req.Context)]
}

// extend samples the next token of a call and decides whether it ends.
func (e *Engine) extend(c *call, logits []float32) {
	position := len(c.req.Context) + len(c.out.Tokens)
	id, logp := sample(logits, c.req, position)
	n := int32(len(c.out.Tokens))
	c.out.Tokens = append(c.out.Tokens, id)
	c.out.Logprobs = append(c.out.Logprobs, logp)
	if v := c.out.Versions; len(v) > 0 && v[len(v)-1].Version == e.current {
		v[len(v)-1].End = n + 1
	} else {
		c.out.Versions = append(v, forager.VersionSpan{Span: forager.Span{Start: n, End: n + 1}, Version: e.current})
	}
	before := len(c.text)
	c.text = append(c.text, e.vocab.TokenBytes(id)...)
	switch {
	case endsWithStop(c.text, before, c.req.Stop):
		c.out.Stop = policy.StopString
	case id == e.vocab.EOS():
		c.out.Stop = policy.StopEOS
	case len(c.out.Tokens) >= c.req.MaxTokens || position+1 >= e.arch.ContextLength:
		c.out.Stop = policy.StopLength
	}
}

// finish answers a call and keeps its session for the next turn.
func (e *Engine) finish(c *call, err error) {
	c.session.busy = false
	c.finished <- err
}

// batch is the rows of one step.
type batch struct {
	rows   []row
	sample []int   // rows whose successor is sampled
	calls  []*call // their calls
}

type row struct {
	session  *session
	position int
	token    int32
}

func (b *batch) reset() {
	clear(b.calls)
	b.rows, b.sample, b.calls = b.rows[:0], b.sample[:0], b.calls[:0]
}

// add appends a row and notes its token in the session's cache.
func (b *batch) add(s *session, position int, token int32) {
	s.tokens = append(s.tokens[:position], token)
	b.rows = append(b.rows, row{s, position, token})
}

// session is the KV cache of one token sequence.
type session struct {
	tokens []int32 // whose keys and values are in the cache
	used   uint64  // engine clock of the last use
	busy   bool
	room   int         // positions that keys and values have space for
	limit  int         // the model's context length
	heads  int         // KV heads times head dimension
	keys   [][]float32 // per layer [heads·dim, room]: one dimension's values lie together
	values [][]float32
}

func newSession(a Architecture) *session {
	return &session{
		limit: a.ContextLength, heads: a.KVHeads * a.HeadDim,
		keys: make([][]float32, a.Layers), values: make([][]float32, a.Layers),
	}
}

// reserve makes space for n positions, keeping the cached ones.
func (s *session) reserve(n int) {
	if n <= s.room {
		return
	}
	room := min(s.limit, max(256, 2*s.room, n))
	for _, side := range [][][]float32{s.keys, s.values} {
		for l, old := range side {
			side[l] = make([]float32, s.heads*room)
			if old != nil {
				for h := range s.heads {
					copy(side[l][h*room:], old[h*s.room:][:s.room])
				}
			}
		}
	}
	s.room = room
}

// copyPrefix takes over the first n positions of another session.
func (s *session) copyPrefix(from *session, n int) {
	s.reserve(n)
	for l := range s.keys {
		for h := range s.heads {
			copy(s.keys[l][h*s.room:][:n], from.keys[l][h*from.room:][:n])
			copy(s.values[l][h*s.room:][:n], from.values[l][h*from.room:][:n])
		}
	}
	s.tokens = append(s.tokens[:0], from.tokens[:n]...)
}

func commonPrefix(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// packedModel is the weights in the layout of the generation kernels.
type packedModel struct {
	arch   Architecture
	model  *Model
	layers []packedLayer
	head   *kernel.Packed

	x, h, qkv, attn, gateUp, act, logits []float32
	scores                               [][]float32
}

type packedLayer struct{ qkv, out, gateUp, down *kernel.Packed }

// load packs the weights of m and keeps m for its vectors.
func (p *packedModel) load(m *Model) {
	a := m.Arch
	d, q, f := a.HiddenSize, a.Heads*a.HeadDim, a.IntermediateSize
	width := q + 2*a.KVHeads*a.HeadDim
	p.arch, p.model = a, m
	if p.layers == nil {
		p.layers = make([]packedLayer, a.Layers)
	}
	pack := func(w **kernel.Packed, b []float32, n, k int) {
		if *w == nil {
			*w = kernel.Pack(b, k, n, k, kernel.Float32)
		} else {
			(*w).Repack(b, k)
		}
	}
	for l := range p.layers {
		w := m.params.layers[l]
		pack(&p.layers[l].qkv, w.qkv, width, d)
		pack(&p.layers[l].out, w.out, d, q)
		pack(&p.layers[l].gateUp, w.gateUp, 2*f, d)
		pack(&p.layers[l].down, w.down, d, f)
	}
	pack(&p.head, m.params.head, a.VocabSize, d)
}
