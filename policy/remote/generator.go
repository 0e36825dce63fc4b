package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// Generator continues sequences on the servers. The turns of a session go to one
// server while it is well, where the prefix cache knows them. Each user has a
// Generator of its own, since sessions are numbered by the user.
type Generator struct {
	servers *Servers

	mu       sync.Mutex
	sessions map[uint64]*endpoint // from the first request to Release
}

var _ policy.Generator = (*Generator)(nil)

// NewGenerator makes a generator over the servers.
func (s *Servers) NewGenerator() *Generator {
	return &Generator{servers: s, sessions: map[uint64]*endpoint{}}
}

// Generate implements policy.Generator. It tries again, on another server if
// there is one, until an attempt succeeds or RetryFor is over. All tokens of a
// completion are of one version. Servers of kind llamacpp and openai end at
// their model's own stop tokens, not at those of the request. Log-probabilities are 0 where the kind of
// server gives none, which Open allows for evaluation alone.
func (g *Generator) Generate(ctx context.Context, req policy.Request) (policy.Completion, error) {
	if len(req.Context) == 0 || req.MaxTokens < 1 {
		return policy.Completion{}, fmt.Errorf("generate: %d context tokens, max tokens %d: want at least 1 of both", len(req.Context), req.MaxTokens)
	}
	if req.MinTokens > 0 && g.servers.kind != VLLM && g.servers.kind != SGLang {
		return policy.Completion{}, fmt.Errorf("generate: servers of kind %s know no minimum number of tokens", g.servers.kind)
	}
	var avoid *endpoint
	begun := time.Now()
	for attempt := 0; ; attempt++ {
		e := g.choose(req.Session, avoid)
		done, err := g.servers.attempt(ctx, e, req)
		if err == nil {
			return done, nil
		}
		if ctx.Err() != nil {
			return policy.Completion{}, fmt.Errorf("generate: %w", context.Cause(ctx))
		}
		retry, asked := again(err)
		if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
			retry = true
		}
		if !retry || time.Since(begun) >= g.servers.cfg.RetryFor {
			return policy.Completion{}, explain(e, err, attempt)
		}
		if avoid = e; saturated(err) {
			avoid = nil // its prefix cache is worth the wait
		}
		if !backOff(ctx, attempt, asked, g.servers.cfg.MaxWait) {
			return policy.Completion{}, fmt.Errorf("generate: wait to ask %s again: %w", e.url, context.Cause(ctx))
		}
	}
}

func explain(e *endpoint, err error, attempt int) error {
	tries := ""
	if attempt > 0 {
		tries = fmt.Sprintf(" after %d attempts", attempt+1)
	}
	err = fmt.Errorf("generate: %s%s: %w", e.url, tries, err)
	if saturated(err) {
		return forager.WithHint(fmt.Errorf("%w: %w", err, forager.ErrFull), "lower policy.remote.max_in_flight or start more servers")
	}
	return err
}

// Release implements policy.Generator.
func (g *Generator) Release(session uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, session)
}

// choose gives the session's server, or binds the session to the least busy one
// that is well. If none is, the least busy one is asked all the same.
func (g *Generator) choose(session uint64, avoid *endpoint) *endpoint {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.sessions[session]; e != nil && e != avoid && !e.open() {
		return e
	}
	var best *endpoint
	better := func(e *endpoint) bool {
		if best == nil {
			return true
		}
		if ill, worst := e.open() || e == avoid, best.open() || best == avoid; ill != worst {
			return worst
		}
		return e.waiting.Load() < best.waiting.Load()
	}
	for _, e := range g.servers.endpoints {
		if better(e) {
			best = e
		}
	}
	g.sessions[session] = best
	return best
}

// attempt asks one server once.
func (s *Servers) attempt(ctx context.Context, e *endpoint, req policy.Request) (policy.Completion, error) {
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	if err := e.acquire(ctx); err != nil {
		return policy.Completion{}, err
	}
	defer e.release()
	r := request{Request: req, maxTokens: req.MaxTokens, weights: s.current.Load(), train: s.use.Train}
	if e.context > 0 {
		r.maxTokens = min(r.maxTokens, e.context-len(req.Context))
		if r.maxTokens < 1 {
			return policy.Completion{Stop: policy.StopLength}, nil
		}
	}
	return e.breaker.Execute(func() (policy.Completion, error) {
		if err := e.bring(ctx, s.dialect, r.weights, s.loadLimit); err != nil {
			return policy.Completion{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		done, err := s.dialect.complete(ctx, e, r)
		if errors.Is(err, errNotLoaded) {
			e.forget()
		}
		if err != nil {
			return policy.Completion{}, err
		}
		if err := checkCompletion(done, r.train); err != nil {
			return policy.Completion{}, err
		}
		version, err := r.version(done.tag)
		if errors.Is(err, errNotLoaded) {
			e.forget()
		}
		return done.completion(version), err
	})
}

// version tells which weights sampled the tokens. A server that names its
// weights is believed: another actor may have brought newer ones meanwhile, and
// older or foreign ones must not be learned from under a false number.
func (r request) version(tag string) (forager.Version, error) {
	if r.weights == nil {
		return 0, nil
	}
	name, version, ok := parseTag(tag)
	switch {
	case !ok || name == r.weights.Name && version < r.weights.Version:
		return 0, fmt.Errorf("it runs %q, not %q: %w", tag, r.weights.tag(), errNotLoaded)
	case name != r.weights.Name:
		return 0, forager.WithHint(fmt.Errorf("it runs the weights %q of another run: %w", tag, forager.ErrInUse), "give each run servers of its own")
	}
	return version, nil
}

func (r result) completion(v forager.Version) policy.Completion {
	if r.logprobs == nil {
		r.logprobs = make([]float32, len(r.tokens))
	}
	c := policy.Completion{Tokens: r.tokens, Logprobs: r.logprobs, Stop: r.stop}
	if n := int32(len(r.tokens)); n > 0 {
		c.Versions = []forager.VersionSpan{{Span: forager.Span{Start: 0, End: n}, Version: v}}
	}
	return c
}
