package node

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager/bus"
)

// unreadable counts messages that this program cannot read: of a newer schema, or
// damaged. They cost what they held and stop nobody.
type unreadable struct {
	count  *prometheus.CounterVec // by stream; nil counts nothing
	logger *slog.Logger
}

func newUnreadable(r prometheus.Registerer, logger *slog.Logger) unreadable {
	u := unreadable{logger: logger, count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "forager_unreadable_messages_total", Help: "Messages of the bus that this program cannot read.",
	}, []string{"stream"})}
	r.MustRegister(u.count)
	return u
}

func (u unreadable) note(s bus.Stream, sequence uint64, err error) {
	if u.count != nil {
		u.count.WithLabelValues(string(s)).Inc()
	}
	u.logger.Warn("a message cannot be read and is passed over", "stream", s, "sequence", sequence, "error", err)
}
