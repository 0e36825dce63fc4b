package judge

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

// EndpointStats is a snapshot of one endpoint.
type EndpointStats struct {
	Endpoint string `json:"endpoint"` // address, without user and query
	// State is ok, paused (it asked for a pause), open (it fails and is left alone),
	// probing (one request tries it) or aside (a person must act).
	State    string `json:"state"`
	Error    string `json:"error,omitempty"` // why it is not ok
	InFlight int    `json:"in_flight"`
	Limit    int    `json:"limit"` // of calls in flight, as it is now

	// Calls by outcome: answered, unusable, busy, failed, misconfigured, cancelled.
	Calls            map[string]uint64 `json:"calls"`
	PromptTokens     uint64            `json:"prompt_tokens"`
	CompletionTokens uint64            `json:"completion_tokens"`
	// Estimated is how many answers came without a count of tokens.
	Estimated uint64        `json:"estimated"`
	Latency   time.Duration `json:"latency"` // average of about the last 8 answers
}

// counts is the part of EndpointStats that only grows.
type counts struct {
	calls              map[string]uint64
	prompt, completion uint64
	estimated          uint64
}

// states are the values of EndpointStats.State in the order of their numbers in
// forager_judge_state.
var states = []string{"ok", "paused", "probing", "open", "aside"}

// Stats gives a snapshot of every endpoint, in the order of the configuration.
func (p *Pool) Stats() []EndpointStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]EndpointStats, len(p.endpoints))
	for i, e := range p.endpoints {
		all[i] = EndpointStats{
			Endpoint: e.name, State: states[e.state(p.deps.Now())], InFlight: e.inFlight, Limit: e.limit.places(),
			Calls: maps.Clone(e.counts.calls), PromptTokens: e.counts.prompt, CompletionTokens: e.counts.completion,
			Estimated: e.counts.estimated, Latency: time.Duration(e.limit.short * float64(time.Second)),
		}
		if all[i].State != states[0] {
			all[i].Error = e.why().Error()
		}
	}
	return all
}

// state is an index into states.
func (e *endpoint) state(now time.Time) int {
	breaker := e.breaker.State()
	switch {
	case e.aside != nil:
		return 4
	case breaker == gobreaker.StateOpen:
		return 3
	case breaker == gobreaker.StateHalfOpen:
		return 2
	case now.Before(e.pausedUntil):
		return 1
	}
	return 0
}

// metrics counts for Prometheus.
type metrics struct {
	calls, tokens *prometheus.CounterVec
	latency       *prometheus.HistogramVec
}

// newMetrics makes and registers the metrics; what changes up and down is read
// when it is collected. reg may be nil.
func newMetrics(reg prometheus.Registerer, p *Pool) (*metrics, error) {
	m := &metrics{
		calls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_judge_calls_total", Help: "Calls of a judge endpoint by outcome."}, []string{"endpoint", "outcome"}),
		tokens:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_judge_tokens_total", Help: "Tokens of prompts and answers, as the endpoint counts them or estimated."}, []string{"endpoint", "kind", "counted"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "forager_judge_latency_seconds", Help: "Time of an answered call.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}, []string{"endpoint"}),
	}
	if reg == nil {
		return m, nil
	}
	errs := []error{reg.Register(m.calls), reg.Register(m.tokens), reg.Register(m.latency)}
	for _, e := range p.endpoints {
		for _, g := range []struct {
			name, help string
			value      func() int
		}{
			{"forager_judge_in_flight", "Calls under way.", func() int { return e.inFlight }},
			{"forager_judge_limit", "Calls that may be under way: what the endpoint bears.", func() int { return e.limit.places() }},
			{"forager_judge_state", "0 ok, 1 paused as it asked, 2 probing, 3 left alone because it fails, 4 set aside until its settings are mended.", func() int { return e.state(p.deps.Now()) }},
		} {
			errs = append(errs, reg.Register(prometheus.NewGaugeFunc(
				prometheus.GaugeOpts{Name: g.name, Help: g.help, ConstLabels: prometheus.Labels{"endpoint": e.name}},
				func() float64 {
					p.mu.Lock()
					defer p.mu.Unlock()
					return float64(g.value())
				})))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the judge's metrics: %w", err)
	}
	return m, nil
}

// call counts one. The pool is locked.
func (m *metrics) call(e *endpoint, f fault, answer Answer, took time.Duration) {
	if e.counts.calls == nil {
		e.counts.calls = map[string]uint64{}
	}
	e.counts.calls[f.outcome()]++
	m.calls.WithLabelValues(e.name, f.outcome()).Inc()
	if f == faultNone {
		m.latency.WithLabelValues(e.name).Observe(took.Seconds())
	}
	if answer.PromptTokens+answer.CompletionTokens == 0 {
		return
	}
	counted := "server"
	if answer.Estimated {
		counted = "estimated"
		if e.counts.estimated++; e.counts.estimated == 1 {
			e.logger.Info("judge endpoint counts no tokens; its costs are estimated at four bytes each")
		}
	}
	e.counts.prompt += uint64(answer.PromptTokens)
	e.counts.completion += uint64(answer.CompletionTokens)
	m.tokens.WithLabelValues(e.name, "prompt", counted).Add(float64(answer.PromptTokens))
	m.tokens.WithLabelValues(e.name, "completion", counted).Add(float64(answer.CompletionTokens))
}
