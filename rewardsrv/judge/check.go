package judge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/forager-rl/forager"
)

// Check asks every endpoint whether it is there, all at one time, and joins what
// is wrong, with the next step. It is nil when all are well; some servers list
// no models, so any answer counts but a refusal of the key. An endpoint that
// refuses it is set aside, without another log line.
func (p *Pool) Check(ctx context.Context) error {
	errs := make([]error, len(p.endpoints))
	var all sync.WaitGroup
	for i, e := range p.endpoints {
		all.Go(func() { errs[i] = p.check(ctx, e) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (p *Pool) check(ctx context.Context, e *endpoint) error {
	err := e.list(ctx, p.config)
	var refused *refusal
	switch {
	case err == nil, errors.Is(err, errTooLarge): // the list is long
		return nil
	case errors.As(err, &refused) && refused.status != http.StatusUnauthorized && refused.status != http.StatusForbidden:
		return nil
	case blame(err) == faultSettings:
		p.mu.Lock()
		defer p.mu.Unlock()
		e.setAside(p.deps.Now(), err)
		return forager.WithHint(fmt.Errorf("judge endpoint %s: %w", e.name, err), e.advice(err))
	}
	return forager.WithHint(fmt.Errorf("judge endpoint %s does not answer: %w", e.name, err),
		"start it or correct its base_url; learning goes on without its labels")
}
