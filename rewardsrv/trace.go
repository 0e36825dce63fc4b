package rewardsrv

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// startSpan begins the span of a step at the judge, in the trace of the group that
// wanted its label first. Groups that want it later get it without a judge, and
// without a span.
func (s *Server) startSpan(ctx context.Context, w work) (context.Context, trace.Span) {
	return s.deps.Tracer.Start(spans.At(ctx, w.trace), "annotation.label",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String(forager.AttributeTask, w.item.Task.ID),
			attribute.String(forager.AttributeSource, w.source),
			attribute.String(forager.AttributeJudge, w.grader.Judge()),
			attribute.String(forager.AttributeRubric, w.grader.Rubric()),
		))
}

// endSpan ends it. An answer that cannot be used is an outcome, not an error.
func endSpan(span trace.Span, err error) {
	if errors.Is(err, ErrUnusable) {
		span.SetAttributes(attribute.String(forager.AttributeOutcome, resultUnusable))
		err = nil
	}
	spans.End(span, err)
}
