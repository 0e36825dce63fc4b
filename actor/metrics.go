package actor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

type metrics struct {
	rollouts *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	group    prometheus.Histogram
	failures prometheus.Counter
	paused   prometheus.Counter
	waited   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		rollouts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_actor_rollouts_total", Help: "Rollouts played, by the reason they ended."}, []string{"finish"}),
		tokens:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_actor_tokens_total", Help: "Tokens of finished rollouts: sampled by the policy, or inserted by the environment."}, []string{"kind"}),
		group:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "forager_actor_group_duration_seconds", Help: "Time to play one group.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 12)}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_actor_credits_returned_total", Help: "Credits handed back, after a failure or because the actor stops."}),
		paused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_actor_pauses_total", Help: "Pauses because the rollout stream was full."}),
		waited:   prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_actor_weights_wait_seconds_total", Help: "Time that credits waited for the policy version at which they were issued; credits wait side by side."}),
	}
	r.MustRegister(m.rollouts, m.tokens, m.group, m.failures, m.paused, m.waited)
	return m
}

func (m *metrics) played(g forager.Group, took time.Duration) {
	m.group.Observe(took.Seconds())
	for i := range g.Rollouts {
		r := &g.Rollouts[i]
		m.rollouts.WithLabelValues(string(r.Finish)).Inc()
		policy := r.PolicyTokens()
		m.tokens.WithLabelValues("policy").Add(float64(policy))
		m.tokens.WithLabelValues("environment").Add(float64(len(r.Tokens) - policy))
	}
}
