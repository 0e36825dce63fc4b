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
	dropMalformed   = "malformed"    // its digest names no rollout, task or turn
	dropIndex       = "index"        // the label index could not be read
	dropJudgeError  = "judge_error"  // the judge gave no answer to its step, time after time
	dropShutdown    = "shutdown"     // its label could not be published in time
)

// Results of a judge call.
const (
	resultPositive = "positive" // value above 0
	resultZero     = "zero"     // value 0 or below
	resultUnusable = "unusable" // an answer without a label
	resultError    = "error"    // no answer
)

// What became of a claim.
const (
	claimWon       = "won"
	claimLost      = "lost"       // another server holds the key
	claimTakenOver = "taken_over" // from a server that held it too long
)

// Stats is a snapshot of the server.
type Stats struct {
	Queued    int `json:"queued"`    // steps that wait for the judge
	InFlight  int `json:"in_flight"` // steps at the judge
	Elsewhere int `json:"elsewhere"` // steps at another server's judge

	Wanted    uint64            `json:"wanted"`    // labels that digests asked for
	Hits      uint64            `json:"hits"`      // of these, answered at once with a label that was known
	Answered  uint64            `json:"answered"`  // of these, with a label that another server published
	Judged    map[string]uint64 `json:"judged"`    // judge calls by result: positive, zero, unusable, error
	Published uint64            `json:"published"` // annotations
	Dropped   map[string]uint64 `json:"dropped"`   // turns left without an annotation, by reason
	JudgeDown bool              `json:"judge_down"`
}

// Calls is the number of judge calls, those without a usable answer included.
func (s Stats) Calls() (n uint64) {
	for _, results := range s.Judged {
		n += results
	}
	return n
}

// HitRate is the share of wanted labels that cost no judge call, 0 to 1.
func (s Stats) HitRate() float64 {
	if s.Wanted == 0 || s.Calls() > s.Wanted {
		return 0
	}
	return 1 - float64(s.Calls())/float64(s.Wanted)
}

// metrics counts for Stats and, when there is a registerer, for Prometheus.
type metrics struct {
	mu     sync.Mutex
	counts Stats

	digests, hits, published, expired, keysFailed prometheus.Counter
	wants, labels, dropped, claims                *prometheus.CounterVec
	latency                                       *prometheus.HistogramVec
	age                                           prometheus.Histogram
}

// newMetrics makes and registers the metrics; sizes and the pause are read when
// they are collected. reg may be nil.
func newMetrics(reg prometheus.Registerer, l *ledger, p *pause) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "forager_rewardsrv_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forager_rewardsrv_" + name, Help: help}, labels)
	}
	m := &metrics{
		counts:     Stats{Judged: map[string]uint64{}, Dropped: map[string]uint64{}},
		digests:    counter("digests_total", "Turn digests read."),
		wants:      counters("wanted_total", "Labels that digests asked for, by reward source.", "source"),
		hits:       counter("cache_hits_total", "Wanted labels that were known already."),
		published:  counter("published_total", "Annotations published."),
		expired:    counter("claims_expired_total", "Steps that another server held for longer than a lease."),
		keysFailed: counter("failed_total", "Steps without a usable answer, which stay unlabelled."),
		labels:     counters("labels_total", "Judge calls by result.", "judge", "outcome"),
		dropped:    counters("dropped_total", "Turns left without an annotation, by reason.", "reason"),
		claims:     counters("claims_total", "Claims on steps, by what became of them.", "outcome"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "forager_rewardsrv_judge_latency_seconds", Help: "Time of one judge call.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}, []string{"judge"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "forager_rewardsrv_age_seconds", Help: "Time since a step that goes to the judge was last wanted.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, value func(sizes) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "forager_rewardsrv_" + name, Help: help}, func() float64 { return value(l.sizes()) })
	}
	var errs []error
	for _, collector := range []prometheus.Collector{
		m.digests, m.wants, m.hits, m.published, m.expired, m.keysFailed, m.labels, m.dropped, m.claims, m.latency, m.age,
		gauge("queue_depth", "Steps that wait for the judge.", func(z sizes) float64 { return float64(z.queued) }),
		gauge("queue_bytes", "Text of the steps that wait, here and for other servers.", func(z sizes) float64 { return float64(z.bytes) }),
		gauge("queue_oldest_seconds", "Time since the oldest step that waits was last wanted.", func(z sizes) float64 { return z.oldest.Seconds() }),
		gauge("in_flight", "Steps at the judge.", func(z sizes) float64 { return float64(z.inFlight) }),
		gauge("elsewhere", "Steps at the judge of another reward server.", func(z sizes) float64 { return float64(z.elsewhere) }),
		gauge("unconfirmed", "Settled steps that the stream of labels has not shown yet.", func(z sizes) float64 { return float64(z.unconfirmed) }),
		gauge("judge_down", "1 while the server pauses because no judge can be asked.", func(sizes) float64 {
			if p.isDown() {
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

func (m *metrics) wanted(source string) {
	m.wants.WithLabelValues(source).Inc()
	m.count(func(s *Stats) { s.Wanted++ })
}

func (m *metrics) hit() {
	m.hits.Inc()
	m.count(func(s *Stats) { s.Hits++ })
}

func (m *metrics) answered(n int) {
	m.count(func(s *Stats) { s.Answered += uint64(n) })
}

func (m *metrics) publish(n int) {
	m.published.Add(float64(n))
	m.count(func(s *Stats) { s.Published += uint64(n) })
}

func (m *metrics) drop(reason string, turns int) {
	m.dropped.WithLabelValues(reason).Add(float64(turns))
	m.count(func(s *Stats) { s.Dropped[reason] += uint64(turns) })
}

func (m *metrics) judged(judge, result string, took time.Duration) {
	m.labels.WithLabelValues(judge, result).Inc()
	m.latency.WithLabelValues(judge).Observe(took.Seconds())
	m.count(func(s *Stats) { s.Judged[result]++ })
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
