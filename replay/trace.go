package replay

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	statuses "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
)

// insert puts a batch into the table. Its groups keep their place in their
// trace on disk, so that it is there after a restart too.
func (s *Service) insert(ctx context.Context, d Delivery) error {
	ctx, span := s.Tracer.Start(extract(ctx, d.Trace), "replay.insert", trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String(forager.AttributeRun, s.run), attribute.Int(forager.AttributeBytes, len(d.Data))))
	defer span.End()
	inserted, repeated, err := s.table.insert(d.Data, inject(ctx))
	outcome := "inserted"
	switch {
	case err != nil:
		outcome = "refused"
		span.SetStatus(statuses.Error, "")
	case inserted == 0 && repeated > 0:
		outcome = "repeated" // another play of the credit was there first
	}
	span.SetAttributes(attribute.String(forager.AttributeOutcome, outcome))
	return err
}

// traceSample notes in the trace of each lent group that it was lent, and to whom: the
// request's span is linked to. The groups then stand where that is noted.
func (s *Service) traceSample(ctx context.Context, r request, loan *Loan) {
	for _, lot := range loan.Lots {
		for i, key := range lot.Keys {
			sampled, span := s.Tracer.Start(extract(ctx, lot.Traces[i]), "replay.sample", trace.WithLinks(linkTo(ctx)...),
				trace.WithAttributes(
					attribute.String(forager.AttributeRun, s.run),
					attribute.Int64(forager.AttributeGroup, int64(key)),
					attribute.Int64(forager.AttributeVersion, int64(r.Query.Version)),
					attribute.Int64(forager.AttributeEpoch, int64(r.Epoch)),
				))
			span.End()
			lot.Traces[i] = inject(sampled)
		}
	}
}

// linkTo gives the link to the span of ctx, none when it has none.
func linkTo(ctx context.Context) []trace.Link {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	return []trace.Link{trace.LinkFromContext(ctx)}
}

// extract is ctx at a place in a trace, whatever its own was. Without a place, what
// begins there begins a trace.
func extract(ctx context.Context, at forager.Trace) context.Context {
	return propagation.TraceContext{}.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), &at)
}

// inject gives the place of ctx in its trace.
func inject(ctx context.Context) (at forager.Trace) {
	propagation.TraceContext{}.Inject(ctx, &at)
	return at
}

// traced gives none for a list in which nothing is traced.
func traced(list []forager.Trace) []forager.Trace {
	for _, at := range list {
		if at != (forager.Trace{}) {
			return list
		}
	}
	return nil
}
