// Package tracetest is a receiver of traces for tests: a server on loopback that
// speaks OTLP over HTTP and keeps the spans it gets.
//
// Only tests import it.
package tracetest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Place identifies a span; ids are in hexadecimal.
type Place struct{ Trace, Span string }

// Span is a span as it came over the wire.
type Span struct {
	Place
	Parent     string // span id, "" at the beginning of a trace
	Name       string
	Service    string
	Links      []Place
	Attributes map[string]string
	Start, End time.Time
	Failed     bool
}

// Receiver keeps what is sent to it.
type Receiver struct {
	server *httptest.Server

	mu      sync.Mutex
	spans   []Span
	errs    []error
	changed chan struct{} // closed when there are more spans
}

// Start makes a receiver that listens until the test ends. The test fails if it is
// sent what is not OTLP.
func Start(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{changed: make(chan struct{})}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(func() {
		r.server.Close()
		for _, err := range r.errs {
			t.Errorf("receiver of traces: %v", err)
		}
	})
	return r
}

// URL is its address, without a path.
func (r *Receiver) URL() string { return r.server.URL }

// Spans is what has come so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Await waits until enough says so of the spans that have come, and reports false
// when ctx ended first.
func (r *Receiver) Await(ctx context.Context, enough func([]Span) bool) bool {
	for {
		r.mu.Lock()
		spans, changed := slices.Clone(r.spans), r.changed
		r.mu.Unlock()
		if enough(spans) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Receiver) serve(w http.ResponseWriter, request *http.Request) {
	body, err := unpack(request)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return // whoever sent it was killed, perhaps
	}
	spans, err := read(request, body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.spans = append(r.spans, spans...)
	close(r.changed)
	r.changed = make(chan struct{})
}

func unpack(request *http.Request) ([]byte, error) {
	if request.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(request.Body)
	}
	unpacked, err := gzip.NewReader(request.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(unpacked)
}

func read(request *http.Request, body []byte) ([]Span, error) {
	if request.Method != http.MethodPost || request.URL.Path != "/v1/traces" || request.Header.Get("Content-Type") != "application/x-protobuf" {
		return nil, fmt.Errorf("%s %s of type %s", request.Method, request.URL.Path, request.Header.Get("Content-Type"))
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &export); err != nil {
		return nil, err
	}
	var spans []Span
	for _, resource := range export.GetResourceSpans() {
		service := attributes(resource.GetResource().GetAttributes())["service.name"]
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				spans = append(spans, span(s, service))
			}
		}
	}
	return spans, nil
}

func span(s *wire.Span, service string) Span {
	out := Span{
		Place:  Place{hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetSpanId())},
		Parent: hex.EncodeToString(s.GetParentSpanId()), Name: s.GetName(), Service: service,
		Attributes: attributes(s.GetAttributes()), Failed: s.GetStatus().GetCode() == wire.Status_STATUS_CODE_ERROR,
		Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
	}
	for _, l := range s.GetLinks() {
		out.Links = append(out.Links, Place{hex.EncodeToString(l.GetTraceId()), hex.EncodeToString(l.GetSpanId())})
	}
	return out
}

func attributes(list []*common.KeyValue) map[string]string {
	values := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			values[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			values[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			values[a.GetKey()] = a.GetValue().String()
		}
	}
	return values
}
