package bus

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
)

const (
	sampleParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	sampleState  = "vendor=opaque"
)

// traced is a context with the trace context above.
func traced(t *testing.T) context.Context {
	t.Helper()
	ctx := extract(t.Context(), nats.Header{"traceparent": {sampleParent}, "tracestate": {sampleState}})
	if !trace.SpanContextFromContext(ctx).IsValid() {
		t.Fatal("no span context")
	}
	return ctx
}

func TestMessagesCarryTraceContext(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	want := forager.Trace{Parent: sampleParent, State: sampleState}
	for _, s := range []Stream{Credits, Rollouts, Digests} {
		if err := a.Publish(traced(t), s, "1", []byte("x")); err != nil {
			t.Fatal(err)
		}
		m := take(t, b, s, 1)[0]
		if m.Trace != want {
			t.Errorf("%s: %+v, want %+v", s, m.Trace, want)
		}
		if err := m.Nak(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if again := take(t, b, s, 1)[0]; again.Trace != want {
			t.Errorf("%s, delivered again: %+v, want %+v", s, again.Trace, want)
		}
	}
}

func TestRequestsCarryTraceContext(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	seen := make(chan trace.SpanContext, 1)
	serve(t, a, "echo", func(ctx context.Context, data []byte) ([]byte, error) {
		if len(data) > 0 { // serve asks with nothing
			seen <- trace.SpanContextFromContext(ctx)
		}
		return data, nil
	})
	want := trace.SpanContextFromContext(traced(t))
	ask := func(ctx context.Context, want trace.TraceID) {
		t.Helper()
		if _, err := b.Request(ctx, "echo", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got.TraceID() != want {
			t.Errorf("handler sees trace %s, want %s", got.TraceID(), want)
		}
	}
	ask(traced(t), want.TraceID())
	ask(t.Context(), trace.TraceID{})
}

// Headers that are not trace context, or broken, are as if there were none.
func TestMalformedTraceContext(t *testing.T) {
	for name, header := range map[string]nats.Header{
		"none":           nil,
		"empty":          {"traceparent": {""}},
		"no values":      {"traceparent": {}},
		"text":           {"traceparent": {"hello"}},
		"zero ids":       {"traceparent": {"00-00000000000000000000000000000000-0000000000000000-01"}},
		"upper case":     {"traceparent": {strings.ToUpper(sampleParent)}},
		"cut off":        {"traceparent": {sampleParent[:40]}},
		"version ff":     {"traceparent": {"ff" + sampleParent[2:]}},
		"very long":      {"traceparent": {sampleParent + strings.Repeat("0", 1<<20)}},
		"other spelling": {"Traceparent": {sampleParent}},
		"state alone":    {"tracestate": {sampleState}},
	} {
		if got := traceOf(header); got != (forager.Trace{}) {
			t.Errorf("%s: %+v, want nothing", name, got)
		}
		if ctx := extract(t.Context(), header); ctx != t.Context() {
			t.Errorf("%s: the context changed", name)
		}
	}
	// A broken state does not take the parent with it.
	got := traceOf(nats.Header{"traceparent": {sampleParent}, "tracestate": {"=,=" + strings.Repeat("x", 1<<20)}})
	if want := (forager.Trace{Parent: sampleParent}); got != want {
		t.Errorf("broken state: %+v, want %+v", got, want)
	}
}

// Without a trace a message has no header of one, and neither side pays for it.
func TestUntracedMessages(t *testing.T) {
	b := open(t, nil)
	publish(t, b, Rollouts, "1", "x")
	m := take(t, b, Rollouts, 1)[0]
	for _, name := range (&forager.Trace{}).Keys() {
		if value, there := m.msg.Headers()[name]; there {
			t.Errorf("header %s is %q", name, value)
		}
	}
	header := m.msg.Headers()
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		inject(ctx, header)
		_ = traceOf(header)
		_ = extract(ctx, header)
	}); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
}
