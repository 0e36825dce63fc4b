package learner

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
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
		links = append(links, spans.LinkTo(spans.At(context.Background(), g.trace))...)
	}
	return links
}
