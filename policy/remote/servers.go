package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// Use says what completions are for. Log-probabilities are checked against the
// sampling of training rollouts; evaluation needs none.
type Use struct {
	Train       bool
	Temperature float32
	TopK        int
	TopP        float32
}

// Deps is what Open needs from outside; all fields are required.
type Deps struct {
	// Tokenizer is the model's own. Servers of kind openai get and give text; for
	// the others it is used to ask a test question.
	Tokenizer policy.Tokenizer
	Logger    *slog.Logger
}

// Servers are connected inference servers of one kind that serve one model.
type Servers struct {
	cfg       Config
	kind      Kind
	dialect   dialect
	use       Use
	endpoints []*endpoint
	client    *http.Client
	logger    *slog.Logger
	current   atomic.Pointer[Weights]
}

// Open finds the servers and refuses with ErrUnsuitable what they cannot do.
// Servers that do not answer yet are waited for.
func Open(ctx context.Context, cfg Config, use Use, deps Deps) (*Servers, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("policy servers: %w", err)
	}
	if len(cfg.URLs) == 0 {
		return nil, forager.WithHint(errors.New("policy servers: none is named"), "give one with policy.remote.urls")
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("policy servers: the default HTTP transport was replaced")
	}
	transport := base.Clone()
	transport.MaxIdleConnsPerHost = cfg.MaxInFlight
	s := &Servers{cfg: cfg, use: use, client: &http.Client{Transport: transport}, logger: deps.Logger}
	for _, address := range cfg.URLs {
		s.endpoints = append(s.endpoints, newEndpoint(address, cfg, s.client, deps.Logger))
	}
	if err := s.open(ctx, deps.Tokenizer); err != nil {
		s.Close()
		return nil, fmt.Errorf("policy servers: %w", err)
	}
	return s, nil
}

// open identifies every server, then checks what it gives.
func (s *Servers) open(ctx context.Context, tok policy.Tokenizer) error {
	waiting, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout)
	defer cancel()
	kinds := make([]Kind, len(s.endpoints))
	errs := make([]error, len(s.endpoints))
	var wait sync.WaitGroup
	for i, e := range s.endpoints {
		wait.Go(func() { kinds[i], errs[i] = s.identify(waiting, e) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.kind = kinds[0]
	for i, e := range s.endpoints {
		if kinds[i] != s.kind || e.model != s.endpoints[0].model && s.kind != OpenAI {
			return forager.WithHint(fmt.Errorf("%s is %s serving %q, %s is %s serving %q", s.endpoints[0].url, s.kind, s.endpoints[0].model, e.url, kinds[i], e.model),
				"all servers of a policy must be of one kind and serve one model; see policy.remote.model")
		}
	}
	s.dialect = map[Kind]dialect{VLLM: vllm{}, SGLang: sglang{}, LlamaCpp: llamaCpp{}, OpenAI: openAI{tok, s.cfg.Extra}}[s.kind]
	if !s.use.Train {
		return nil
	}
	if s.kind != VLLM && s.kind != SGLang {
		return fixedWeights(s.kind)
	}
	for _, e := range s.endpoints {
		if err := s.checkTokens(ctx, e, tok); err != nil {
			return fmt.Errorf("%s: %w", e.url, err)
		}
	}
	return nil
}

// Kind is the kind of the servers, never Auto.
func (s *Servers) Kind() Kind { return s.kind }

// InFlight is the number of completions that the servers take at once.
func (s *Servers) InFlight() int { return len(s.endpoints) * s.cfg.MaxInFlight }

// Close lets go of idle connections. It is safe to call twice.
func (s *Servers) Close() { s.client.CloseIdleConnections() }
