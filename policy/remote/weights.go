package remote

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/forager-rl/forager"
)

// Weights is one published version of a policy in a folder that servers read.
type Weights struct {
	// Name is that of the run. Servers may serve several runs, or one after
	// another, so it is part of the name that the weights get there.
	Name    string
	Version forager.Version
	// Path is the folder, as the servers see it.
	Path string
	// Adapter says that the folder holds a LoRA adapter in PEFT's format, and not
	// a whole model.
	Adapter bool
}

// tag names weights on a server.
func (w Weights) tag() string { return fmt.Sprintf("%s-v%08d", w.Name, w.Version) }

// parseTag is the opposite of tag.
func parseTag(tag string) (name string, version forager.Version, ok bool) {
	i := strings.LastIndex(tag, "-v")
	if i < 0 {
		return "", 0, false
	}
	v, err := strconv.ParseUint(tag[i+2:], 10, 64)
	return tag[:i], forager.Version(v), err == nil
}

// SetWeights brings new weights to all servers. Completions that begin from now
// on use them; those under way end on the weights that they began with. A
// version that is not newer is refused with forager.ErrStale. Servers that could
// not load are left out until they have; when none could it is an error, and the
// older version goes on.
func (s *Servers) SetWeights(ctx context.Context, w Weights) error {
	if current := s.current.Load(); current != nil && current.Name == w.Name && w.Version <= current.Version {
		return fmt.Errorf("swap weights: have version %d, got %d: %w", current.Version, w.Version, forager.ErrStale)
	}
	if err := s.CanTake(w.Adapter); err != nil {
		return err
	}
	errs := make([]error, len(s.endpoints))
	var wait sync.WaitGroup
	for i, e := range s.endpoints {
		wait.Go(func() {
			if err := e.bring(ctx, s.dialect, &w, s.loadLimit); err != nil {
				errs[i] = fmt.Errorf("%s: %w", e.url, err)
			}
		})
	}
	wait.Wait()
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
			s.logger.Warn("a server did not take new weights and is left out until it does", "version", w.Version, "error", err)
		}
	}
	if failed == len(errs) {
		return errors.Join(errs...)
	}
	s.current.Store(&w)
	return nil
}

// Version is that of the weights that completions begin with; 0 before the
// first SetWeights.
func (s *Servers) Version() forager.Version {
	if w := s.current.Load(); w != nil {
		return w.Version
	}
	return 0
}

func (s *Servers) loadLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.LoadTimeout)
}

// CanTake reports why servers of this kind cannot take new weights, adapters or
// whole models, or nil.
func (s *Servers) CanTake(adapter bool) error {
	switch {
	case s.kind == SGLang, s.kind == VLLM && adapter:
		return nil
	case s.kind == VLLM:
		return forager.WithHint(fmt.Errorf("vLLM takes new weights as LoRA adapters, the learner trains whole models: %w", ErrUnsuitable),
			"set trainer.lora.rank, or serve the policy with SGLang")
	}
	return fixedWeights(s.kind)
}
