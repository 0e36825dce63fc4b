package rewardsrv

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons why a turn goes without a label.
const (
	dropQueueFull   = "queue_full"   // its step was the oldest when the queue was full
	dropWaitingFull = "waiting_full" // too many turns waited for its step
	dropTooLarge    = "too_large"    // its digest is larger than max_digest_bytes
	dropUnknownTask = "unknown_task" // its task is not among the tasks
	dropMalformed   = "malformed"    // its digest names no rollout or task
	dropShutdown    = "shutdown"     // its label could not be published in time
)

// Outcomes of a judge call.
const (
	outcomeHelpful    = "positive" // value above 0
	outcomeNotHelpful = "zero"     // value 0 or below
	outcomeUnusable   = "unusable" // an answer without a label
	outcomeError      = "error"    // no answer
)

// Stats is a snapshot of the server.
type Stats struct {
	Queued   int `json:"queued"`    // steps that wait for the judge
	InFlight int `json:"in_flight"` // steps at the judge
	Labelled int `json:"labelled"`  // labels kept
	Failed   int `json:"failed"`    // steps that stay unlabelled

	Digests   uint64            `json:"digests"`    // read
	CacheHits uint64            `json:"cache_hits"` // digests answered without the judge
	Judged    map[string]uint64 `json:"judged"`     // judge calls by outcome: positive, zero, unusable, error
	Published uint64            `json:"published"`  // annotations
	Dropped   map[string]uint64 `json:"dropped"`    // turns left without an annotation, by reason
	JudgeDown bool              `json:"judge_down"` // the server pauses because the judge fails
}

// metrics counts for Stats and, when there is a registerer, for Prometheus.
type metrics struct {
	mu     sync.Mutex
	counts Stats

	digests, cacheHits, published prometheus.Counter
	labels, dropped               *prometheus.CounterVec
	latency                       *prometheus.HistogramVec
}

// newMetrics makes and registers the metrics; keys by state and the circuit are
// read when they are collected. reg may be nil.
func newMetrics(reg prometheus.Registerer, l *ledger, c *circuit) (*metrics, error) {
	m := &metrics{
		counts:    Stats{Judged: map[string]uint64{}, Dropped: map[string]uint64{}},
		digests:   prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_rewardsrv_digests_total", Help: "Turn digests read."}),
		cacheHits: prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_rewardsrv_cache_hits_total", Help: "Digests answered with a label that was known already."}),
		published: prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_rewardsrv_published_total", Help: "Annotations published."}),
		labels:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_rewardsrv_labels_total", Help: "Judge calls by outcome."}, []string{"judge", "outcome"}),
		dropped:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_rewardsrv_dropped_total", Help: "Turns left without an annotation, by reason."}, []string{"reason"}),
		latency:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "forager_rewardsrv_judge_latency_seconds", Help: "Time of one judge call.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"judge"}),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	var errs []error
	for _, collector := range []prometheus.Collector{
		m.digests, m.cacheHits, m.published, m.labels, m.dropped, m.latency,
		gauge("forager_rewardsrv_queue_depth", "Steps that wait for the judge.", func() int { n, _, _, _ := l.sizes(); return n }),
		gauge("forager_rewardsrv_in_flight", "Steps at the judge.", func() int { _, n, _, _ := l.sizes(); return n }),
		gauge("forager_rewardsrv_labelled", "Labels kept.", func() int { _, _, n, _ := l.sizes(); return n }),
		gauge("forager_rewardsrv_failed", "Steps that stay unlabelled.", func() int { _, _, _, n := l.sizes(); return n }),
		gauge("forager_rewardsrv_judge_down", "1 while the server pauses because the judge fails.", func() int {
			if c.isOpen() {
				return 1
			}
			return 0
		}),
	} {
		errs = append(errs, reg.Register(collector))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the reward server's metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) digest() {
	m.digests.Inc()
	m.count(func(s *Stats) { s.Digests++ })
}

func (m *metrics) cacheHit() {
	m.cacheHits.Inc()
	m.count(func(s *Stats) { s.CacheHits++ })
}

func (m *metrics) publish(n int) {
	m.published.Add(float64(n))
	m.count(func(s *Stats) { s.Published += uint64(n) })
}

func (m *metrics) drop(reason string, turns int) {
	m.dropped.WithLabelValues(reason).Add(float64(turns))
	m.count(func(s *Stats) { s.Dropped[reason] += uint64(turns) })
}

func (m *metrics) judged(judge, outcome string, took time.Duration) {
	m.labels.WithLabelValues(judge, outcome).Inc()
	m.latency.WithLabelValues(judge).Observe(took.Seconds())
	m.count(func(s *Stats) { s.Judged[outcome]++ })
}

func (m *metrics) count(update func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	update(&m.counts)
}

func (m *metrics) snapshot() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.counts
	s.Judged, s.Dropped = maps.Clone(s.Judged), maps.Clone(s.Dropped)
	return s
}
