package replay

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// export registers the service's metrics. They read the table when scraped.
func (s *Service) export(registerer prometheus.Registerer) error {
	var errs []error
	gauge := func(name, help string, value func(Stats) float64) {
		errs = append(errs, registerer.Register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "forager", Subsystem: "replay", Name: name, Help: help},
			func() float64 { return value(s.Stats()) })))
	}
	counter := func(name, help string, value func(Stats) float64) {
		errs = append(errs, registerer.Register(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "forager", Subsystem: "replay", Name: name, Help: help},
			func() float64 { return value(s.Stats()) })))
	}
	gauge("groups", "Groups in the table.", func(t Stats) float64 { return float64(t.Groups) })
	gauge("lent_groups", "Groups lent to the learner and not yet committed.", func(t Stats) float64 { return float64(t.Lent) })
	gauge("disk_bytes", "Bytes in segment files.", func(t Stats) float64 { return float64(t.Bytes) })
	gauge("labels", "Annotations kept in memory.", func(t Stats) float64 { return float64(t.LabelsKept) })
	counter("inserted_groups_total", "Groups stored.", func(t Stats) float64 { return float64(t.Inserted) })
	counter("repeated_groups_total", "Groups refused because they came before.", func(t Stats) float64 { return float64(t.Repeated) })
	counter("sampled_groups_total", "Groups lent to the learner.", func(t Stats) float64 { return float64(t.Sampled) })
	counter("committed_groups_total", "Groups used up by a durable checkpoint.", func(t Stats) float64 { return float64(t.Committed) })
	counter("stale_groups_total", "Groups given up because they were too old.", func(t Stats) float64 { return float64(t.Stale) })
	counter("evicted_groups_total", "Groups given up because the table was full.", func(t Stats) float64 { return float64(t.Evicted) })
	counter("corrupt_batches_total", "Stored batches that could not be read back.", func(t Stats) float64 { return float64(t.Corrupt) })
	counter("labels_total", "Annotations received.", func(t Stats) float64 { return float64(t.Labels) })
	counter("labels_dropped_total", "Annotations dropped because too many were kept.", func(t Stats) float64 { return float64(t.LabelsDropped) })
	counter("quarantined_batches_total", "Batches put aside because they could not be used.", func(Stats) float64 { return float64(s.quarantined.Load()) })
	counter("unarchived_groups_total", "Groups that could not be archived.", func(Stats) float64 { return float64(s.unarchived.Load()) })
	return errors.Join(errs...)
}

// Stats describes the table; it is empty until the table is open.
func (s *Service) Stats() Stats {
	select {
	case <-s.ready:
		return s.table.Stats()
	default:
		return Stats{}
	}
}
