// Package spans is what the packages that make spans have in common: how a place in
// a trace is taken up and handed on, and how a span ends.
//
// The services import it. It knows OpenTelemetry's API alone; what becomes of spans
// is up to package tracing.
package spans

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/forager-rl/forager"
)

// TracerOrNone is the tracer, or one whose spans are not there for nil.
func TracerOrNone(tracer trace.Tracer) trace.Tracer {
	if tracer == nil {
		return noop.Tracer{}
	}
	return tracer
}

// At is ctx at a place in a trace, whatever its own was. Without a place, what
// begins there begins a trace.
func At(ctx context.Context, place forager.Trace) context.Context {
	return propagation.TraceContext{}.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), &place)
}

// Place is where ctx is in its trace, zero when it is in none.
func Place(ctx context.Context) (place forager.Trace) {
	propagation.TraceContext{}.Inject(ctx, &place)
	return place
}

// LinkTo is the link to where ctx is in its trace, none when it is in none.
func LinkTo(ctx context.Context) []trace.Link {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	return []trace.Link{trace.LinkFromContext(ctx)}
}

// End ends a span. Of an error it tells only that there was one: its text may hold
// what must not leave the cluster.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
