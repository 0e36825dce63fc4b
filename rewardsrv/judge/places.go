package judge

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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

// settle gives a place back, learns from what came of it, and counts it. It tells
// who is to blame.
func (p *Pool) settle(c *call, err error, answer Answer, took time.Duration) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := c.endpoint.blame(err)
	c.endpoint.settle(c, p.deps.Now(), f, err, took)
	p.metrics.call(c.endpoint, f, answer, took)
	p.dispatch()
	return f
}

// release gives back a place from which nothing was asked.
func (p *Pool) release(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.endpoint.settle(c, p.deps.Now(), faultCancelled, errLeft, 0)
	p.dispatch()
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
