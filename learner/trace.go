package learner

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
)

// SpanStep is the name of the span of a step, which begins a trace.
const SpanStep = "learner.step"

// position says which learner does something, and when.
func (l *Learner) position(step uint64, version forager.Version) trace.SpanStartEventOption {
	return trace.WithAttributes(
		attribute.String(forager.AttributeRun, l.RunID),
		attribute.Int64(forager.AttributeStep, int64(step)),
		attribute.Int64(forager.AttributeVersion, int64(version)),
		attribute.Int64(forager.AttributeEpoch, int64(l.Epoch)),
	)
}

// links are to the groups of a step. One span has one parent, and a step learns
// from many credits.
func (h *harvest) links() []trace.Link {
	var links []trace.Link
	for _, g := range h.groups {
		links = append(links, linksTo(propagation.TraceContext{}.Extract(context.Background(), &g.trace))...)
	}
	return links
}

// linksTo gives the link to the span of ctx, none when it has none.
func linksTo(ctx context.Context) []trace.Link {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	return []trace.Link{trace.LinkFromContext(ctx)}
}

// finish ends a span. Of an error it tells only that there was one: its text may
// hold what must not leave the cluster.
func finish(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
