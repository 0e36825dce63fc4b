package tracing

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Reasons why a span is dropped.
const (
	dropQueue  = "queue_full" // max_queue others waited
	dropExport = "export"     // the receiver did not take it
)

// delivery takes finished spans to the exporter and keeps account of them. The
// SDK's own queue drops in silence, and what goes wrong with an export goes to a
// global handler that logs every time: neither gets to see a reason to.
type delivery struct {
	exporter sdk.SpanExporter
	batches  sdk.SpanProcessor // of the SDK; its queue never fills
	limit    int64
	waiting  atomic.Int64 // finished and not yet taken or dropped
	ended    atomic.Bool  // nothing is sent any more
	failing  atomic.Bool  // the last export failed
	full     sync.Once    // the first span dropped because too many waited
	logger   *slog.Logger

	exported prometheus.Counter
	dropped  *prometheus.CounterVec
}

func newDelivery(exporter sdk.SpanExporter, config Config, logger *slog.Logger, registerer prometheus.Registerer) (*delivery, error) {
	d := &delivery{
		exporter: exporter, limit: int64(config.MaxQueue), logger: logger,
		exported: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forager_tracing_spans_exported_total", Help: "Spans that the receiver of traces took.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "forager_tracing_spans_dropped_total", Help: "Spans that were not delivered, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{dropQueue, dropExport} {
		d.dropped.WithLabelValues(reason) // so that they are there before anything is dropped
	}
	for _, c := range []prometheus.Collector{d.exported, d.dropped} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	d.batches = sdk.NewBatchSpanProcessor(accounted{d},
		sdk.WithMaxQueueSize(config.MaxQueue), sdk.WithMaxExportBatchSize(min(config.MaxQueue, sdk.DefaultMaxExportBatchSize)),
		sdk.WithBatchTimeout(config.FlushInterval), sdk.WithExportTimeout(config.Timeout))
	return d, nil
}

// processor is where finished spans come in.
func (d *delivery) processor() sdk.SpanProcessor { return bounded{d.batches, d} }

// end drops what still waits and breaks off what is being sent.
func (d *delivery) end() {
	d.ended.Store(true)
	_ = d.exporter.Shutdown(context.Background()) // has no more to say
}

func (d *delivery) drop(reason string, spans int) {
	d.dropped.WithLabelValues(reason).Add(float64(spans))
}

// bounded is the way in. It never blocks.
type bounded struct {
	sdk.SpanProcessor
	d *delivery
}

// OnEnd implements sdk.SpanProcessor.
func (b bounded) OnEnd(span sdk.ReadOnlySpan) {
	if b.d.waiting.Add(1) > b.d.limit {
		b.d.waiting.Add(-1)
		b.d.drop(dropQueue, 1)
		b.d.full.Do(func() {
			b.d.logger.Warn("spans are dropped because too many wait for the receiver of traces; further ones are only counted", "max_queue", b.d.limit)
		})
		return
	}
	b.SpanProcessor.OnEnd(span)
}

// accounted is the way out: an exporter that never fails.
type accounted struct{ d *delivery }

// ExportSpans implements sdk.SpanExporter.
func (a accounted) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	d := a.d
	defer d.waiting.Add(-int64(len(spans)))
	if d.ended.Load() {
		d.drop(dropExport, len(spans))
		return nil
	}
	if err := d.exporter.ExportSpans(ctx, spans); err != nil {
		d.drop(dropExport, len(spans))
		if !d.failing.Swap(true) {
			d.logger.Warn("traces are not delivered; nothing else suffers, and further failures are only counted", "error", err)
		}
		return nil
	}
	d.exported.Add(float64(len(spans)))
	if d.failing.Swap(false) {
		d.logger.Info("traces are delivered again")
	}
	return nil
}

// Shutdown implements sdk.SpanExporter.
func (a accounted) Shutdown(ctx context.Context) error { return a.d.exporter.Shutdown(ctx) }
