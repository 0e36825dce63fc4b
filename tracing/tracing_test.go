package tracing

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager/tracing/tracetest"
)

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(word string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), word)
}

func start(t *testing.T, endpoint string, change func(*Config)) (*Tracing, *lines) {
	t.Helper()
	cfg, log := DefaultConfig(), &lines{}
	cfg.Endpoint = endpoint
	if change != nil {
		change(&cfg)
	}
	traces, err := Open(cfg, Deps{
		Service: "forager-test", Instance: "a-1", Version: "v0", Always: []string{"always"},
		Logger: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(traces.Close)
	return traces, log
}

func TestSpansArrive(t *testing.T) {
	receiver := tracetest.Start(t)
	traces, log := start(t, receiver.URL(), nil)
	ctx, parent := traces.Tracer("test").Start(t.Context(), "parent")
	_, child := traces.Tracer("test").Start(ctx, "child")
	child.End()
	parent.End()
	traces.Close()
	spans := receiver.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2", len(spans))
	}
	c, p := spans[0], spans[1]
	if c.Name != "child" || c.Parent != p.Span || c.Trace != p.Trace || p.Parent != "" || p.Service != "forager-test" {
		t.Errorf("child %+v, parent %+v", c, p)
	}
	if n := testutil.ToFloat64(traces.delivery.exported); n != 2 || log.count("WARN") > 0 {
		t.Errorf("%g spans exported, want 2", n)
	}
	traces.Close() // safe twice
}

// Who is asked to trace nothing does nothing.
func TestOff(t *testing.T) {
	traces, _ := start(t, "", nil)
	_, span := traces.Tracer("test").Start(t.Context(), "a")
	defer span.End()
	if span.IsRecording() || span.SpanContext().IsValid() {
		t.Error("there is a span")
	}
	ctx, tracer := t.Context(), traces.Tracer("test")
	// One for the context of the span, which the API promises.
	if n := testing.AllocsPerRun(100, func() { _, span := tracer.Start(ctx, "a"); span.End() }); n > 1 {
		t.Errorf("%g allocations a span", n)
	}
}

// The decision is made where a trace begins, and holds for all that follows.
func TestSampling(t *testing.T) {
	traces, _ := start(t, tracetest.Start(t).URL(), func(c *Config) { c.SampleRatio = 0 })
	tracer := traces.Tracer("test")
	ctx, credit := tracer.Start(t.Context(), "credit")
	if _, child := tracer.Start(ctx, "always"); credit.IsRecording() || child.IsRecording() {
		t.Error("a trace beyond the ratio is sampled")
	}
	if _, step := tracer.Start(t.Context(), "always"); !step.IsRecording() {
		t.Error("what is to be sampled always is not")
	}
	elsewhere := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true})
	if _, child := tracer.Start(trace.ContextWithSpanContext(t.Context(), elsewhere), "child"); !child.IsRecording() {
		t.Error("what another process has decided to sample is not sampled")
	}
}

// A receiver that takes a connection and then says nothing: whoever makes spans
// does not notice, memory is bounded, and the end comes all the same.
func TestReceiverThatHangs(t *testing.T) {
	asked, release := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	const queue, made = 8, 1000
	traces, log := start(t, server.URL, func(c *Config) { c.MaxQueue, c.Timeout = queue, 100*time.Millisecond })
	tracer := traces.Tracer("test")
	for range queue { // a whole batch, which is sent at once
		_, span := tracer.Start(t.Context(), "a")
		span.End()
	}
	<-asked
	for range made { // returns although nothing is taken: else the test would not end
		_, span := tracer.Start(t.Context(), "b")
		span.End()
	}
	traces.Close()
	d := traces.delivery
	d.batches.Shutdown(context.Background()) //nolint:errcheck // only waits
	full := testutil.ToFloat64(d.dropped.WithLabelValues(dropQueue))
	if full < made-2*queue || testutil.ToFloat64(d.exported) != 0 {
		t.Errorf("%g of %d spans dropped because the queue was full, %g exported", full, made, testutil.ToFloat64(d.exported))
	}
	if n := log.count("too many wait"); n != 1 {
		t.Errorf("%d warnings about the queue, want 1", n)
	}
}

// Nobody listens: one warning, however many exports fail.
func TestNoReceiver(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	traces, log := start(t, server.URL, func(c *Config) { c.MaxQueue = 1 }) // one export for each span
	const made = 20
	d := traces.delivery
	for range made {
		_, span := traces.Tracer("test").Start(t.Context(), "a")
		span.End()
		if err := traces.spans.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	traces.Close()
	if lost := testutil.ToFloat64(d.dropped.WithLabelValues(dropExport)) + testutil.ToFloat64(d.dropped.WithLabelValues(dropQueue)); lost != made {
		t.Errorf("%g spans counted as dropped, want %d", lost, made)
	}
	if n := log.count("not delivered"); n != 1 || d.waiting.Load() != 0 {
		t.Errorf("%d warnings, want 1; %d spans still count as waiting", n, d.waiting.Load())
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" for no error
	}{
		"default":      {func(*Config) {}, ""},
		"http":         {func(c *Config) { c.Endpoint = "http://127.0.0.1:4318" }, ""},
		"https, path":  {func(c *Config) { c.Endpoint = "https://collector.example/otlp/v1/traces" }, ""},
		"no scheme":    {func(c *Config) { c.Endpoint = "127.0.0.1:4318" }, "endpoint"},
		"grpc":         {func(c *Config) { c.Endpoint = "grpc://127.0.0.1:4317" }, "endpoint"},
		"no host":      {func(c *Config) { c.Endpoint = "http://:4318" }, "endpoint"},
		"password":     {func(c *Config) { c.Endpoint = "http://me:hush@host:4318" }, "OTEL_EXPORTER_OTLP_HEADERS"},
		"key in query": {func(c *Config) { c.Endpoint = "http://host:4318/?key=hush" }, "OTEL_EXPORTER_OTLP_HEADERS"},
		"broken":       {func(c *Config) { c.Endpoint = "http://me:hush@host:port" }, "endpoint"},
		"ratio":        {func(c *Config) { c.SampleRatio = 1.5 }, "sample_ratio"},
		"negative":     {func(c *Config) { c.SampleRatio = -0.1 }, "sample_ratio"},
		"timeout":      {func(c *Config) { c.Timeout = 0 }, "timeout"},
		"queue":        {func(c *Config) { c.MaxQueue = 0 }, "max_queue"},
		"flush":        {func(c *Config) { c.FlushInterval = -1 }, "flush_interval"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		err := cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
	for endpoint, want := range map[string]string{
		"http://a:1": "http://a:1/v1/traces", "http://a:1/": "http://a:1/v1/traces", "https://a/x/traces": "https://a/x/traces",
	} {
		if got := (Config{Endpoint: endpoint}).receiver(); got != want {
			t.Errorf("%s: %s, want %s", endpoint, got, want)
		}
	}
}
