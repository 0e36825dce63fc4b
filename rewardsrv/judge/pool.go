package judge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// Deps is what a pool works with.
type Deps struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no Prometheus metrics
	Now        func() time.Time
	Random     *rand.Rand        // for jitter; used by this pool alone
	Transport  http.RoundTripper // nil: connections of its own
}

// Pool asks endpoints. It is safe for concurrent use, starts no goroutine that
// outlives a call, and holds no connection but idle ones.
type Pool struct {
	config  Config
	deps    Deps
	metrics *metrics

	mu               sync.Mutex
	endpoints        []*endpoint
	waiters          []*waiter // first come, first served; one for each caller that waits
	requests, tokens *budget
}

// waiter is a caller of Ask that waits for a place.
type waiter struct {
	avoid *endpoint     // the one that just failed it
	ready chan struct{} // closed when call or err is set
	call  *call
	err   error
}

// call is a place at an endpoint.
type call struct {
	endpoint *endpoint
	dialect  dialect
	sent     time.Time
	probe    bool
	report   func(error) // to the breaker
}

// New checks the settings and makes a pool. It does no I/O.
func New(config Config, deps Deps) (*Pool, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil || deps.Now == nil || deps.Random == nil {
		return nil, errors.New("judge: logger, clock and random source are needed")
	}
	transport := deps.Transport
	if transport == nil {
		standard, ok := http.DefaultTransport.(*http.Transport)
		if !ok {
			return nil, errors.New("judge: the default HTTP transport was replaced")
		}
		own := standard.Clone()
		own.MaxIdleConns = 0
		own.MaxIdleConnsPerHost = config.MaxInFlight // the default of 2 would reconnect for most requests
		own.MaxResponseHeaderBytes = config.MaxAnswerBytes
		transport = own
	}
	p := &Pool{
		config: config, deps: deps,
		requests: newBudget("requests_per_hour", config.RequestsPerHour, deps.Now()),
		tokens:   newBudget("tokens_per_hour", config.TokensPerHour, deps.Now()),
	}
	for _, each := range config.Endpoints {
		e, err := newEndpoint(config, each, transport, deps)
		if err != nil {
			return nil, err
		}
		p.endpoints = append(p.endpoints, e)
	}
	var err error
	if p.metrics, err = newMetrics(deps.Registerer, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Model is the name of the judge.
func (p *Pool) Model() string { return p.config.Model }

// Ask puts a request to an endpoint, and to another or again after a pause when
// that fails, as often as Config.Retries allows. It does not wait for endpoints
// to recover: while none is well it fails at once. It returns within
// (retries + 1) × 2 × timeout and the pauses in between, and soon after ctx is
// done. Errors wrap ErrUnusable, ErrUnavailable or neither (see the package). An
// answer comes with some errors that wrap ErrUnusable, for its cost alone.
func (p *Pool) Ask(ctx context.Context, req Request) (Answer, error) {
	var avoid *endpoint
	for attempt := 0; ; {
		c, err := p.place(ctx, avoid)
		if err != nil {
			wait, _ := RetryAfter(err)
			if attempt == 0 || attempt > p.config.Retries || wait > longestWait || !p.pause(ctx, wait) {
				return Answer{}, err
			}
			attempt++
			continue
		}
		answer, err := p.try(ctx, c, req)
		switch f := blame(err); f {
		case faultNone, faultCancelled, faultRequest:
			return answer, err
		case faultSettings: // this endpoint is out, which costs no attempt
		default:
			if attempt++; attempt > p.config.Retries {
				return Answer{}, p.givenUp(c.endpoint, f, err)
			}
			if !p.pause(ctx, firstRetry<<(attempt-1)) {
				return Answer{}, fmt.Errorf("wait to ask a judge again: %w", context.Cause(ctx))
			}
		}
		avoid = c.endpoint
	}
}

// givenUp is the last error of Ask. An endpoint with too much to do is no failure
// but says when to come back.
func (p *Pool) givenUp(e *endpoint, f fault, err error) error {
	if f != faultBusy {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &UnavailableError{RetryAfter: max(e.away(p.deps.Now()), firstRetry), Reason: err}
}

const (
	firstRetry  = 200 * time.Millisecond // doubles with each
	longestWait = 5 * time.Second        // for an endpoint that said when to come back
)

// pause waits, spread out at random by up to a half so that callers do not come
// back in step. It reports false when ctx ended first.
func (p *Pool) pause(ctx context.Context, wait time.Duration) bool {
	p.mu.Lock()
	spread := time.Duration(p.deps.Random.Int64N(int64(wait/2) + 1))
	p.mu.Unlock()
	timer := time.NewTimer(wait + spread)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// try is one attempt at the place that c holds; it gives the place back.
func (p *Pool) try(ctx context.Context, c *call, req Request) (Answer, error) {
	e := c.endpoint
	estimate := promptTokens(req) + p.config.MaxTokens
	if err := p.withdraw(estimate); err != nil {
		p.release(c)
		return Answer{}, err
	}
	begun := p.deps.Now()
	spoken := c.dialect
	answer, err := e.exchange(ctx, p.config, req, spoken)
	refused := ""
	for err != nil {
		next, parameter, ok := spoken.without(err)
		if !ok || parameter == "response_format" && p.config.StructuredOutput == StructuredOn {
			break
		}
		if err = p.withdraw(0); err != nil {
			break
		}
		spoken, refused = next, parameter
		answer, err = e.exchange(ctx, p.config, req, spoken)
	}
	took := p.deps.Now().Sub(begun)
	if err == nil && refused != "" {
		p.learn(e, spoken, refused)
	}
	p.correct(estimate, answer, err)
	p.settle(c, err, answer, took)
	if err == nil {
		return answer, nil
	}
	return answer, e.report(err)
}

// report is the error of one attempt as callers see it.
func (e *endpoint) report(err error) error {
	var refused *refusal
	f := blame(err)
	if f == faultRequest && errors.As(err, &refused) {
		err = fmt.Errorf("%w: %w", err, ErrUnusable)
	}
	err = fmt.Errorf("ask judge endpoint %s: %w", e.name, err)
	if f == faultSettings {
		err = forager.WithHint(err, e.advice(err))
	}
	return err
}

// learn remembers a dialect that was understood.
func (p *Pool) learn(e *endpoint, spoken dialect, refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.dialect != spoken {
		e.dialect = spoken
		e.logger.Info("judge endpoint refuses a parameter and is asked without it from now on", "parameter", refused)
	}
}

// withdraw takes one request and some tokens from the budgets, or says when there
// will be enough.
func (p *Pool) withdraw(tokens int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.deps.Now()
	for _, b := range []struct {
		*budget
		amount int
	}{{p.requests, 1}, {p.tokens, tokens}} {
		if wait := b.wait(now, b.amount); wait > 0 {
			if b.sayOnce(now) {
				p.deps.Logger.Warn("budget for the judge is spent: labels come no faster than it allows", "budget", b.name, "model", p.config.Model)
			}
			return &UnavailableError{RetryAfter: wait, Reason: fmt.Errorf("%s is spent", b.name)}
		}
	}
	p.requests.take(1)
	p.tokens.take(tokens)
	return nil
}

// correct replaces the estimate of a call's tokens by what it cost. Calls that
// broke off may have cost as much as estimated; refused ones cost nothing.
func (p *Pool) correct(estimate int, answer Answer, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refused *refusal
	if cost := answer.PromptTokens + answer.CompletionTokens; cost > 0 {
		p.tokens.take(cost - estimate)
	} else if errors.As(err, &refused) || blame(err) == faultSettings {
		p.tokens.take(-estimate)
	}
}

// place waits for a place at an endpoint, first come, first served. It fails at
// once when none is well.
func (p *Pool) place(ctx context.Context, avoid *endpoint) (*call, error) {
	w := &waiter{avoid: avoid, ready: make(chan struct{})}
	p.mu.Lock()
	p.waiters = append(p.waiters, w)
	p.dispatch()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.call, w.err
	default:
	}
	timer := time.NewTimer(p.config.Timeout)
	defer timer.Stop()
	select {
	case <-w.ready:
		return w.call, w.err
	case <-ctx.Done():
		p.leave(w)
		return nil, fmt.Errorf("wait for a place at a judge: %w: %w", errLeft, context.Cause(ctx))
	case <-timer.C:
		p.leave(w)
		return nil, &UnavailableError{RetryAfter: probePause, Reason: fmt.Errorf("no free place within %v", p.config.Timeout)}
	}
}

// leave takes a waiter out, or gives back the place that it was given meanwhile.
func (p *Pool) leave(w *waiter) {
	p.mu.Lock()
	for i, each := range p.waiters {
		if each == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			break
		}
	}
	given := w.call
	p.mu.Unlock()
	if given != nil {
		p.release(given)
	}
}

// dispatch gives places to waiters while there are any. The pool is locked.
func (p *Pool) dispatch() {
	now := p.deps.Now()
	for len(p.waiters) > 0 {
		w := p.waiters[0]
		w.call, w.err = p.choose(now, w.avoid)
		if w.call == nil && w.err == nil {
			return // all places are taken: the next one that is given back leads here
		}
		p.waiters[0] = nil
		p.waiters = p.waiters[1:]
		close(w.ready)
	}
}

// choose takes a place at the endpoint with the largest part of its places free,
// if possible not at the one to avoid. Without a place and an error all are
// taken. The pool is locked.
func (p *Pool) choose(now time.Time, avoid *endpoint) (*call, error) {
	var best *endpoint
	var reasons []error
	var soonest time.Duration
	used := func(e *endpoint) float64 { return float64(e.inFlight) / float64(e.limit.places()) }
	for _, e := range p.endpoints {
		if wait := e.away(now); wait > 0 {
			if soonest == 0 || wait < soonest {
				soonest = wait
			}
			reasons = append(reasons, e.why())
			continue
		}
		switch {
		case e.inFlight >= e.limit.places():
		case best == nil, best == avoid, e != avoid && used(e) < used(best):
			best = e
		}
	}
	if len(reasons) == len(p.endpoints) {
		return nil, &UnavailableError{RetryAfter: soonest, Reason: errors.Join(reasons...)}
	}
	if best == nil {
		return nil, nil
	}
	c, ok := best.admit(now)
	if !ok { // its breaker closed the door between two looks
		return nil, &UnavailableError{RetryAfter: probePause, Reason: best.why()}
	}
	return c, nil
}

// settle gives a place back, learns from what came of it, and counts it.
func (p *Pool) settle(c *call, err error, answer Answer, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := blame(err)
	c.endpoint.settle(c, p.deps.Now(), f, err, took)
	p.metrics.call(c.endpoint, f, answer, took)
	p.dispatch()
}

// release gives back a place from which nothing was asked.
func (p *Pool) release(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.endpoint.settle(c, p.deps.Now(), faultCancelled, errLeft, 0)
	p.dispatch()
}

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

// Capacity is how many requests can be in flight at once by the limits of now, at
// the endpoints that are well; 0 while none is.
func (p *Pool) Capacity() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.deps.Now()
	n := 0
	for _, e := range p.endpoints {
		if e.away(now) == 0 {
			n += e.limit.places()
		}
	}
	return n
}
