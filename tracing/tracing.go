package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Deps is what tracing needs from outside. All fields are required but Always.
type Deps struct {
	Service    string   // name of the process's kind, as traces are filed under
	Instance   string   // name of the process among others
	Version    string   // of the program
	Always     []string // names of spans that are sampled whatever the ratio, as beginnings of traces
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Tracing makes spans and sends them.
type Tracing struct {
	config   Config
	logger   *slog.Logger
	provider trace.TracerProvider
	spans    *sdk.TracerProvider // nil when off
	delivery *delivery           // nil when off
}

// Open begins to send spans in the background. Without an endpoint it does
// nothing, and tracers make spans that are not there. It does not ask whether
// anybody listens. Close it when the last span has ended.
func Open(config Config, deps Deps) (*Tracing, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	t := &Tracing{config: config, logger: deps.Logger, provider: noop.NewTracerProvider()}
	if config.Endpoint == "" {
		return t, nil
	}
	ctx := context.Background() // neither of the two does I/O
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", deps.Service),
		attribute.String("service.instance.id", deps.Instance),
		attribute.String("service.version", deps.Version),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("tracing: attributes of this process: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(config.receiver()), otlptracehttp.WithTimeout(config.Timeout))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if t.delivery, err = newDelivery(exporter, config, deps.Logger, deps.Registerer); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	limits := sdk.NewSpanLimits()
	limits.LinkCountLimit = -1 // a step of the learner links to all its groups
	t.spans = sdk.NewTracerProvider(
		sdk.WithResource(about), sdk.WithRawSpanLimits(limits), sdk.WithSpanProcessor(t.delivery.processor()),
		sdk.WithSampler(sdk.ParentBased(roots{sdk.TraceIDRatioBased(config.SampleRatio), deps.Always})),
	)
	t.provider = t.spans
	return t, nil
}

// Tracer makes the spans of a package, which is named by its import path.
func (t *Tracing) Tracer(name string) trace.Tracer { return t.provider.Tracer(name) }

// Close sends what waits, for at most Config.Timeout, and drops the rest. A
// collector that takes nothing is no error. It is safe twice.
func (t *Tracing) Close() {
	if t.spans == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.config.Timeout)
	defer cancel()
	if err := t.spans.Shutdown(ctx); err != nil {
		t.logger.Warn("the last spans are dropped", "error", err)
	}
	t.delivery.end()
}

// roots decides about spans that begin a trace.
type roots struct {
	sdk.Sampler
	always []string
}

// ShouldSample implements sdk.Sampler.
func (r roots) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if slices.Contains(r.always, p.Name) {
		return sdk.AlwaysSample().ShouldSample(p)
	}
	return r.Sampler.ShouldSample(p)
}
