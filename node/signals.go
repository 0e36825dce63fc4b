package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
)

// CreditStatus is the work that waits for actors: what an autoscaler looks at.
type CreditStatus struct {
	Waiting uint64 `json:"waiting"` // that no actor holds
	Held    int    `json:"held"`
	Actors  int    `json:"actors"` // processes with the actor role
	// PerActor is Waiting for each of them, or Waiting when there is none.
	PerActor float64 `json:"per_actor"`
}

func newCredits(credits bus.StreamInfo, members []cluster.Member) CreditStatus {
	c := CreditStatus{Waiting: credits.Waiting, Held: credits.Held}
	for i := range members {
		if members[i].Plays(forager.RoleActor) {
			c.Actors++
		}
	}
	c.PerActor = float64(c.Waiting) / float64(max(1, c.Actors))
	return c
}

// creditSignal exports the credits that wait, from the process whose learner has
// the lease and from no other, so that they are counted once.
type creditSignal struct {
	process *process

	mu  sync.Mutex
	now *CreditStatus // nil: not from here
}

var (
	_ prometheus.Collector = (*creditSignal)(nil)
	_ prometheus.Collector = policyGauge{}
)

// run looks at the credits until ctx is done, for as long as this process has the
// lease.
func (s *creditSignal) run(ctx context.Context) {
	defer s.set(nil)
	for {
		if credits, err := s.look(ctx); err == nil {
			s.set(&credits)
		} else if ctx.Err() == nil {
			s.set(nil) // no value is better than an old one
			s.process.logger.Debug("credits could not be counted", "error", err)
		}
		if !sleep(ctx, cluster.Heartbeat) {
			return
		}
	}
}

func (s *creditSignal) look(ctx context.Context) (CreditStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	credits, err := s.process.bus.StreamInfo(ctx, bus.Credits)
	members, other := s.process.roster.Members(ctx)
	return newCredits(credits, members), errors.Join(err, other)
}

func (s *creditSignal) set(c *CreditStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = c
}

// Describe implements prometheus.Collector. Nothing is promised.
func (*creditSignal) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *creditSignal) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	if now == nil {
		return
	}
	gauge := func(name, help string, value float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("forager_credits_"+name, help, nil, nil), prometheus.GaugeValue, value)
	}
	gauge("waiting", "Credits that no actor holds.", float64(now.Waiting))
	gauge("waiting_per_actor", "Credits that no actor holds, for each actor process.", now.PerActor)
}

// policyGauge exports the policy version that a role plays or has published.
type policyGauge struct {
	role    forager.Role
	version func() (v forager.Version, known bool)
}

// Describe implements prometheus.Collector. Nothing is promised: a version is
// not known at first.
func (policyGauge) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g policyGauge) Collect(out chan<- prometheus.Metric) {
	if v, known := g.version(); known {
		description := prometheus.NewDesc("forager_policy_version", "Policy version that the role plays, or has published.", nil,
			prometheus.Labels{"role": string(g.role)})
		out <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, float64(v))
	}
}

// exportBuild exports what this process is.
func (p *process) exportBuild() error {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "forager_build_info", Help: "1 for each role of the process, with the version of the program.",
	}, []string{"version", "role"})
	for _, role := range p.condition.expected() {
		info.WithLabelValues(programVersion(), string(role)).Set(1)
	}
	return p.registry.Register(info)
}

// statusWait bounds each question that a status asks.
const statusWait = 3 * time.Second
