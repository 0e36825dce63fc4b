package search

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// statusClientGone counts requests whose client left; it is never sent.
const statusClientGone = 499

// meter counts what a server does, for /stats and /metrics.
type meter struct {
	handler  http.Handler
	passages int
	cached   func() (hits, misses uint64)

	requests, rejected, failed, queries atomic.Uint64
	byCode                              *prometheus.CounterVec
	seconds                             prometheus.Histogram

	mutex  sync.Mutex
	recent [1024]time.Duration // a ring of the latest latencies
	count  int                 // of latencies ever seen
}

func newMeter(registry *prometheus.Registry, passages int, cached func() (hits, misses uint64)) (*meter, error) {
	m := &meter{
		handler:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		passages: passages,
		cached:   cached,
		byCode: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "forager_search_requests_total", Help: "Requests to /retrieve by HTTP status (499: the client left).",
		}, []string{"code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "forager_search_request_seconds", Help: "Time to answer a request to /retrieve.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
	}
	count := func(name, help string, read func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(read()) })
	}
	collectors := []prometheus.Collector{
		m.byCode, m.seconds,
		count("forager_search_queries_total", "Queries answered.", m.queries.Load),
		count("forager_search_cache_hits_total", "Queries answered from the cache.", func() uint64 { hits, _ := cached(); return hits }),
		count("forager_search_cache_misses_total", "Queries that reached the index.", func() uint64 { _, misses := cached(); return misses }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "forager_search_passages", Help: "Passages in the index."},
			func() float64 { return float64(passages) }),
	}
	var err error
	for _, collector := range collectors {
		err = errors.Join(err, registry.Register(collector))
	}
	return m, err
}

// answered counts a request to /retrieve by its status.
func (m *meter) answered(code int) {
	m.requests.Add(1)
	m.byCode.WithLabelValues(strconv.Itoa(code)).Inc()
	switch {
	case code == http.StatusTooManyRequests:
		m.rejected.Add(1)
	case code != http.StatusOK:
		m.failed.Add(1)
	}
}

// searched counts the queries and the latency of a request that succeeded.
func (m *meter) searched(queries int, latency time.Duration) {
	m.queries.Add(uint64(queries))
	m.seconds.Observe(latency.Seconds())
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.recent[m.count%len(m.recent)] = latency
	m.count++
}

// Stats is the answer of GET /stats. Latencies are those of the latest 1024
// successful requests.
type Stats struct {
	Passages    int     `json:"passages"`
	Requests    uint64  `json:"requests"` // to /retrieve, of any outcome
	Rejected    uint64  `json:"rejected"` // with 429
	Failed      uint64  `json:"failed"`   // with another error
	Queries     uint64  `json:"queries"`
	CacheHits   uint64  `json:"cache_hits"`
	CacheMisses uint64  `json:"cache_misses"`
	LatencyP50  float64 `json:"latency_p50_ms"`
	LatencyP90  float64 `json:"latency_p90_ms"`
	LatencyP99  float64 `json:"latency_p99_ms"`
}

func (m *meter) stats() Stats {
	m.mutex.Lock()
	latencies := slices.Clone(m.recent[:min(m.count, len(m.recent))])
	m.mutex.Unlock()
	slices.Sort(latencies)
	percentile := func(p int) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return float64(latencies[(len(latencies)-1)*p/100].Microseconds()) / 1000
	}
	hits, misses := m.cached()
	return Stats{
		Passages: m.passages, Requests: m.requests.Load(), Rejected: m.rejected.Load(), Failed: m.failed.Load(),
		Queries: m.queries.Load(), CacheHits: hits, CacheMisses: misses,
		LatencyP50: percentile(50), LatencyP90: percentile(90), LatencyP99: percentile(99),
	}
}
