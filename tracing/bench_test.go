package tracing

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager/tracing/tracetest"
)

// BenchmarkSpan is what one span costs whoever makes it, exports included.
func BenchmarkSpan(b *testing.B) {
	for _, c := range []struct {
		name  string
		on    bool
		ratio float64
	}{{"off", false, 0}, {"on/not_sampled", true, 0}, {"on/sampled", true, 1}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.SampleRatio, cfg.MaxQueue = c.ratio, 1<<20
			if c.on {
				cfg.Endpoint = tracetest.Start(b).URL()
			}
			traces, err := Open(cfg, Deps{Service: "bench", Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
			if err != nil {
				b.Fatal(err)
			}
			defer traces.Close()
			tracer := traces.Tracer("bench")
			b.ReportAllocs()
			for b.Loop() {
				_, span := tracer.Start(b.Context(), "rollout.turn", trace.WithAttributes(attribute.Int("forager.turn", 1)))
				span.SetAttributes(attribute.String("forager.turn.kind", "search"), attribute.Int("forager.tokens", 20))
				span.End()
			}
		})
	}
}
