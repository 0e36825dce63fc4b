package bus

import (
	"context"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// carrier holds trace context in the headers of a message. Names of headers are
// in lower case, as W3C writes them; NATS tells cases apart.
type carrier nats.Header

func (c carrier) Get(name string) string {
	if values := c[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (c carrier) Set(name, value string) { c[name] = []string{value} }

func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// inject writes the trace context of ctx, nothing when it has none.
func inject(ctx context.Context, header nats.Header) {
	propagation.TraceContext{}.Inject(ctx, carrier(header))
}

// extract gives ctx with the trace context of a message, ctx itself when that has
// none or one that is malformed.
func extract(ctx context.Context, header nats.Header) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier(header))
}

// traceOf reads the trace context of a message, nothing when it has none or one
// that is malformed.
func traceOf(header nats.Header) forager.Trace {
	if carrier(header).Get("traceparent") == "" {
		return forager.Trace{}
	}
	// Written anew, so that only what was understood goes on from here, and stays
	// small.
	return spans.Place(extract(context.Background(), header))
}
