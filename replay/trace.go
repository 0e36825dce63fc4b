package replay

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// insert puts a batch into the table. Its groups keep their place in their
// trace on disk, so that it is there after a restart too.
func (s *Service) insert(ctx context.Context, d Delivery) error {
	ctx, span := s.Tracer.Start(spans.At(ctx, d.Trace), "replay.insert", trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String(forager.AttributeRun, s.run), attribute.Int(forager.AttributeBytes, len(d.Data))))
	inserted, repeated, err := s.table.insert(d.Data, spans.Place(ctx))
	outcome := "inserted"
	switch {
	case err != nil:
		outcome = "refused"
	case inserted == 0 && repeated > 0:
		outcome = "repeated" // another play of the credit was there first
	}
	span.SetAttributes(attribute.String(forager.AttributeOutcome, outcome))
	spans.End(span, err)
	return err
}

// traceSample notes in the trace of each lent group that it was lent, and to whom: the
// request's span is linked to. The groups then stand where that is noted.
func (s *Service) traceSample(ctx context.Context, r request, loan *Loan) {
	for _, lot := range loan.Lots {
		for i, key := range lot.Keys {
			sampled, span := s.Tracer.Start(spans.At(ctx, lot.Traces[i]), "replay.sample", trace.WithLinks(spans.LinkTo(ctx)...),
				trace.WithAttributes(
					attribute.String(forager.AttributeRun, s.run),
					attribute.Int64(forager.AttributeGroup, int64(key)),
					attribute.Int64(forager.AttributeVersion, int64(r.Query.Version)),
					attribute.Int64(forager.AttributeEpoch, int64(r.Epoch)),
				))
			span.End()
			lot.Traces[i] = spans.Place(sampled)
		}
	}
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
