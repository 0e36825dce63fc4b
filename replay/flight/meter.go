package flight

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// meter counts what is served.
type meter struct {
	logger *slog.Logger
	sent   *prometheus.CounterVec
}

func newMeter(registerer prometheus.Registerer, logger *slog.Logger) (*meter, error) {
	m := &meter{logger: logger, sent: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "forager", Subsystem: "flight", Name: "rollouts_total", Help: "Rollouts sent to Arrow Flight clients, by flight.",
	}, []string{"flight"})}
	if registerer == nil {
		return m, nil
	}
	return m, registerer.Register(m.sent)
}

func (m *meter) rollouts(name string, groups []forager.Group) {
	n := 0
	for _, g := range groups {
		n += len(g.Rollouts)
	}
	m.sent.WithLabelValues(name).Add(float64(n))
}
