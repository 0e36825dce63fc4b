package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/rundir"
)

// reporter writes metrics.jsonl and TensorBoard events, shows the newest step to
// Prometheus, and tells the observer.
type reporter struct {
	process *process
	metrics *rundir.Metrics
	board   *rundir.TensorBoard
	gauges  *stepGauges
	begun   time.Time
	first   uint64 // step that this process started after
}

func (p *process) openReporter(gauges *stepGauges, resumed *learner.State, held func() error) (*reporter, error) {
	r := &reporter{process: p, begun: p.clock(), gauges: gauges}
	if resumed != nil {
		r.first = resumed.Step
	}
	var err error
	if r.metrics, err = p.dir.OpenMetrics(r.first, held); err != nil {
		return nil, err
	}
	if r.board, err = p.dir.OpenTensorBoard(resumed != nil, r.first, p.clock); err != nil {
		return nil, errors.Join(err, r.metrics.Close())
	}
	if resumed != nil && resumed.Metrics.Step == resumed.Step {
		if err := r.repair(resumed.Metrics); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

// repair writes the metrics of the checkpoint's step when a crash came between
// the checkpoint and the report.
func (r *reporter) repair(m learner.StepMetrics) error {
	rows, err := rundir.ReadMetrics(r.process.dir.MetricsPath())
	if err != nil {
		return err
	}
	if n := len(rows); n > 0 && rows[n-1].Step >= m.Step {
		return nil
	}
	return r.write(m)
}

func (r *reporter) write(m learner.StepMetrics) error {
	values := map[string]float64{}
	data, err := json.Marshal(m)
	if err == nil {
		err = json.Unmarshal(data, &values)
	}
	if err != nil {
		return fmt.Errorf("metrics of step %d: %w", m.Step, err)
	}
	r.gauges.set(values)
	delete(values, "step")
	return errors.Join(r.metrics.Append(m.Step, values), r.board.Append(m.Step, values))
}

// close ends the files, and shows no metrics of a learner that has gone.
func (r *reporter) close() error {
	r.gauges.set(nil)
	return errors.Join(r.metrics.Close(), r.board.Close())
}

// Step implements learner.Reporter.
func (r *reporter) Step(m learner.StepMetrics) {
	if err := r.write(m); err != nil {
		r.process.logger.Error("metrics of a step were not written", "step", m.Step, "error", err)
	}
	r.process.learning.note(m.Step, m.Version)
	cfg := r.process.cfg.Learner
	update := StepUpdate{StepMetrics: m, Steps: cfg.Steps, Limit: cfg.TimeLimit}
	if done := m.Step - r.first; done > 0 {
		each := r.process.clock().Sub(r.begun) / time.Duration(done)
		update.Remaining = each * time.Duration(cfg.Steps-min(cfg.Steps, m.Step))
	}
	if cfg.TimeLimit > 0 {
		left := max(0, cfg.TimeLimit-time.Duration(m.ElapsedSeconds*float64(time.Second)))
		update.Remaining = min(update.Remaining, left)
	}
	r.process.observer.step(update)
}

// stepGauges shows the metrics of the newest step as forager_learner_NAME, NAME
// being that of metrics.jsonl.
type stepGauges struct {
	mu     sync.Mutex
	values map[string]float64
}

func (g *stepGauges) set(values map[string]float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.values = maps.Clone(values)
}

// Describe implements prometheus.Collector. What is shown follows the metrics
// of a step, so nothing is promised.
func (*stepGauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g *stepGauges) Collect(out chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, value := range g.values {
		description := prometheus.NewDesc("forager_learner_"+name, "Of the newest learner step, as in metrics.jsonl.", nil, nil)
		out <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, value)
	}
}
