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
			wait, ok := RetryAfter(err)
			if !ok || attempt == 0 || attempt > p.config.Retries || wait > longestWait || !p.pause(ctx, wait) {
				return Answer{}, err
			}
			attempt++
			continue
		}
		answer, f, err := p.try(ctx, c, req)
		switch f {
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
func (p *Pool) try(ctx context.Context, c *call, req Request) (Answer, fault, error) {
	estimate := promptTokens(req) + p.config.MaxTokens
	if err := p.withdraw(estimate); err != nil {
		p.release(c)
		return Answer{}, faultCancelled, err
	}
	begun := p.deps.Now()
	answer, err := p.speak(ctx, c, req)
	took := p.deps.Now().Sub(begun)
	p.correct(estimate, answer, err)
	f := p.settle(c, err, answer, took)
	return answer, f, c.endpoint.report(f, err)
}

// report is the error of one attempt as callers see it.
func (e *endpoint) report(f fault, err error) error {
	var refused *refusal
	switch {
	case err == nil:
		return nil
	case f == faultRequest && errors.As(err, &refused):
		err = fmt.Errorf("%w: %w", err, ErrUnusable)
	case f == faultSettings:
		return forager.WithHint(fmt.Errorf("ask judge endpoint %s: %w", e.name, err), e.advice(err))
	}
	return fmt.Errorf("ask judge endpoint %s: %w", e.name, err)
}

// speak asks in the endpoint's dialect, and in others as long as the endpoint
// refuses a parameter by name. The one that was understood is remembered.
func (p *Pool) speak(ctx context.Context, c *call, req Request) (Answer, error) {
	spoken, refused := c.dialect, ""
	for {
		answer, err := c.endpoint.exchange(ctx, p.config, req, spoken)
		next, parameter, again := spoken.without(err)
		if err == nil && spoken.format == formatObject && c.dialect.format != formatObject && !follows(req.Schema, answer.Text) {
			next.format, again = formatFree, true
		}
		if err == nil && !again {
			if refused != "" {
				p.learn(c.endpoint, spoken, refused)
			}
			return answer, nil
		}
		if !again || next.format == formatFree && spoken.format != formatFree && p.config.StructuredOutput == StructuredOn {
			return answer, err
		}
		if err := p.withdraw(0); err != nil {
			return Answer{}, err
		}
		if spoken = next; parameter != "" {
			refused = parameter
		}
	}
}

// learn remembers a dialect that was understood.
func (p *Pool) learn(e *endpoint, spoken dialect, refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.dialect != spoken {
		e.dialect = spoken
		e.logger.Info("judge endpoint refuses a parameter as it is and is asked otherwise from now on", "parameter", refused)
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
