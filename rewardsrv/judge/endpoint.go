package judge

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/sony/gobreaker/v2"

	"github.com/forager-rl/forager"
)

const (
	asidePause   = 5 * time.Minute  // between probes of an endpoint that a person must mend
	keyPause     = 10 * time.Second // between looks whether its key has changed
	firstPause   = 500 * time.Millisecond
	longestPause = time.Minute // of an endpoint that says 429 without a time
	probePause   = time.Second // while one request finds out whether an endpoint is back

	manyRefusals = 5 // in a row, after which the endpoint is blamed and not the requests
)

// endpoint is one server and what is known about it. Everything but the client
// is guarded by the pool's lock.
type endpoint struct {
	name   string // address, without user and query
	model  string
	key    keySource
	extra  map[string]any // fields of every request, as raw JSON
	chat   openai.ChatCompletionService
	models openai.ModelService
	now    func() time.Time
	logger *slog.Logger

	limit    *limit
	inFlight int
	dialect  dialect
	counts   counts

	breaker   *gobreaker.TwoStepCircuitBreaker[struct{}]
	openUntil time.Time // while the breaker is open
	probing   bool      // a call finds out whether the breaker may close

	pausedUntil time.Time
	pauses      int // in a row

	aside      error // why nobody asks it, nil when it is well
	asideUntil time.Time
	asideKey   string // digest of the key that was refused
	nextLook   time.Time

	proven    bool  // it has answered
	refused   int   // requests in a row
	lastError error // of the last call that failed
}

func newEndpoint(c Config, e EndpointConfig, transport http.RoundTripper, deps Deps) (*endpoint, error) {
	base, err := url.Parse(e.BaseURL)
	if err != nil {
		return nil, errors.New("judge: base_url is no address") // the error itself would show a password
	}
	extra, err := e.extra()
	if err != nil {
		return nil, err
	}
	options := newClient(base, transport, c.MaxAnswerBytes)
	own := &endpoint{
		name: address(base), model: e.Model, key: keySource{env: e.APIKeyEnv, file: e.APIKeyFile}, extra: extra,
		chat: openai.NewChatCompletionService(options...), models: openai.NewModelService(options...),
		now: deps.Now, logger: deps.Logger.With("endpoint", address(base)),
		limit: newLimit(c.MinInFlight, c.MaxInFlight),
	}
	if own.model == "" {
		own.model = c.Model
	}
	if c.StructuredOutput == StructuredOff {
		own.dialect.format = formatFree
	}
	own.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: own.name, MaxRequests: 1, Timeout: c.BreakerPause,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= uint32(c.BreakerFailures) },
		// A busy endpoint is not ill, one that is set aside is not asked anyway, and
		// a caller that leaves says nothing.
		IsSuccessful: func(err error) bool { return blame(err) != faultEndpoint },
		IsExcluded: func(err error) bool {
			f := blame(err)
			return f == faultBusy || f == faultSettings || f == faultCancelled
		},
		OnStateChange: func(_ string, from, to gobreaker.State) { own.breakerChanged(from, to, c.BreakerPause) },
	})
	return own, nil
}

// breakerChanged is called with the pool locked, as the breaker is used only so.
func (e *endpoint) breakerChanged(from, to gobreaker.State, pause time.Duration) {
	switch {
	case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
		e.logger.Warn("judge endpoint fails and is left alone for a while; labels of others and learning go on", "error", e.lastError, "pause", pause)
	case to == gobreaker.StateClosed:
		e.logger.Info("judge endpoint answers again")
	}
	if to == gobreaker.StateOpen {
		e.openUntil = e.now().Add(pause)
	}
}

// away is how long the endpoint is not to be asked; 0 means that it may be asked
// now. It does not count places.
func (e *endpoint) away(now time.Time) time.Duration {
	if e.aside != nil && now.Before(e.asideUntil) && !e.keyChanged(now) {
		return min(e.asideUntil.Sub(now), max(e.nextLook.Sub(now), time.Millisecond))
	}
	if now.Before(e.pausedUntil) {
		return e.pausedUntil.Sub(now)
	}
	switch e.breaker.State() {
	case gobreaker.StateOpen:
		return max(e.openUntil.Sub(now), time.Millisecond)
	case gobreaker.StateHalfOpen:
		if e.probing {
			return probePause
		}
	}
	return 0
}

// keyChanged looks now and then whether there is another key than the one that
// was refused, which is then due to be tried.
func (e *endpoint) keyChanged(now time.Time) bool {
	if now.Before(e.nextLook) {
		return false
	}
	e.nextLook = now.Add(keyPause)
	if e.keyDigest() == e.asideKey {
		return false
	}
	e.asideUntil = now
	return true
}

// keyDigest stands for what reading the key gives, an error included.
func (e *endpoint) keyDigest() string {
	key, err := e.key.read()
	return forager.Digest(key, fmt.Sprint(err))
}

// admit takes a place.
func (e *endpoint) admit(now time.Time) (*call, bool) {
	probe := e.breaker.State() == gobreaker.StateHalfOpen
	report, err := e.breaker.Allow()
	if err != nil {
		return nil, false
	}
	if e.aside != nil { // one probe; the next after a pause
		e.asideUntil, e.asideKey = now.Add(asidePause), e.keyDigest()
	}
	e.inFlight++
	e.probing = e.probing || probe
	return &call{endpoint: e, sent: now, report: report, probe: probe, dialect: e.dialect}, true
}

// settle gives the place back and learns from the outcome.
func (e *endpoint) settle(c *call, now time.Time, f fault, err error, took time.Duration) {
	if err != nil && f != faultCancelled {
		e.lastError = err
	}
	switch f {
	case faultNone:
		e.answers()
		e.proven = true
		e.limit.answered(c.sent, now, took, e.inFlight)
	case faultRequest:
		e.refuses(now, err)
	case faultBusy:
		e.pause(c, now, err)
	case faultEndpoint:
		var refused *refusal
		answered := errors.As(err, &refused)
		if answered || errors.Is(err, errSlow) { // else it is gone, which is for the breaker
			e.limit.overloaded(c.sent, now)
		}
		if answered {
			e.pausedUntil = later(e.pausedUntil, now.Add(refused.after))
		}
	case faultSettings:
		if e.setAside(now, err) {
			e.sayAside()
		}
	}
	e.inFlight--
	if c.probe {
		e.probing = false
	}
	c.report(err)
}

// blame sorts an error in the light of what is known about the endpoint. Some
// hosted ones answer 403 to a text that they find improper: a passage must not be
// able to set an endpoint aside that has answered before.
func (e *endpoint) blame(err error) fault {
	f := blame(err)
	var refused *refusal
	if f == faultSettings && e.proven && errors.As(err, &refused) && refused.status == http.StatusForbidden {
		return faultRequest
	}
	return f
}

// refuses notes that a request was refused. An endpoint that refuses one after
// another and never answered any is not the requests' fault, nor is one that says
// 403 to all.
func (e *endpoint) refuses(now time.Time, err error) {
	var refused *refusal
	if !errors.As(err, &refused) || e.proven && refused.status != http.StatusForbidden {
		e.answers()
		return
	}
	if e.refused++; e.refused < manyRefusals {
		return
	}
	if e.setAside(now, fmt.Errorf("every request is refused, the last with: %w", refused)) {
		e.sayAside()
	}
}

// answers notes that the endpoint is well.
func (e *endpoint) answers() {
	e.pauses, e.refused = 0, 0
	if e.aside != nil {
		e.aside = nil
		e.logger.Info("judge endpoint answers again")
	}
}

// pause keeps off an endpoint that has too much to do, for as long as it asks
// for, or ever longer. Calls that were sent before the pause began do not
// prolong it.
func (e *endpoint) pause(c *call, now time.Time, err error) {
	wait := time.Duration(0)
	var refused *refusal
	if errors.As(err, &refused) {
		wait = refused.after
	}
	if e.limit.overloaded(c.sent, now) && wait == 0 {
		wait = min(firstPause<<min(e.pauses, 16), longestPause)
		e.pauses++
	}
	e.pausedUntil = later(e.pausedUntil, now.Add(wait))
}

// setAside takes the endpoint out until a probe succeeds or its key changes. It
// reports whether the endpoint was well before.
func (e *endpoint) setAside(now time.Time, err error) bool {
	first := e.aside == nil
	e.aside = err
	if first {
		e.asideUntil, e.asideKey, e.nextLook = now.Add(asidePause), e.keyDigest(), now.Add(keyPause)
	}
	return first
}

// sayAside is the one line about an endpoint that is set aside.
func (e *endpoint) sayAside() {
	e.logger.Error("judge endpoint is set aside until this is mended", "error", e.aside, "hint", e.advice(e.aside), "next_try", asidePause)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// why says in what way the endpoint is not well.
func (e *endpoint) why() error {
	err := e.lastError
	if e.aside != nil {
		err = e.aside
	}
	if err == nil {
		err = errors.New("busy")
	}
	return fmt.Errorf("%s: %w", e.name, err)
}
