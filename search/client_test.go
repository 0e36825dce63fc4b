package search

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

func mustClient(t *testing.T, url string, change func(*ClientConfig)) *HTTPRetriever {
	t.Helper()
	config := DefaultClientConfig()
	config.URL = url
	config.MaxWait = time.Millisecond
	if change != nil {
		change(&config)
	}
	r, err := NewHTTPRetriever(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// Every dialect of the client gets from the server what the index gives.
func TestClientAgainstServer(t *testing.T) {
	index := mustBM25(t, countries, DefaultBM25Config())
	url := serve(t, mustServer(t, index, nil))
	queries := []string{"Lima", "", "capital of Chile", "city", "country"}
	want, err := index.Search(context.Background(), queries, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, dialect := range []Dialect{DialectSearchR1, DialectSkyRL, DialectRLLM} {
		r := mustClient(t, url, func(c *ClientConfig) { c.Dialect, c.BatchSize, c.MaxInFlight = dialect, 2, 2 })
		got, err := r.Search(context.Background(), queries, 2)
		if err != nil {
			t.Fatalf("%s: %v", dialect, err)
		}
		if dialect == DialectRLLM { // which has no way to ask for scores
			for i := range want {
				if !slices.Equal(ids(got[i]), ids(want[i])) {
					t.Errorf("%s: %v, want %v", dialect, got[i], want[i])
				}
			}
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", dialect, got, want)
		}
		if got, err := r.Search(context.Background(), nil, 2); err != nil || len(got) != 0 {
			t.Errorf("no queries: %v, %v", got, err)
		}
	}
}

// What foreign servers answer to one query.
func TestForeignAnswers(t *testing.T) {
	full := forager.Passage{ID: "7", Title: "Lima", Text: "a city", Score: 0.5}
	bare := forager.Passage{ID: "7", Title: "Lima", Text: "a city"}
	for name, c := range map[string]struct {
		answer string
		want   []forager.Passage
	}{
		"Search-R1 with scores":    {`{"result": [[{"document": {"id": "7", "contents": "\"Lima\"\na city"}, "score": 0.5}]]}`, []forager.Passage{full}},
		"Search-R1 without scores": {`{"result": [[{"id": 7, "contents": "\"Lima\"\na city"}]]}`, []forager.Passage{bare}},
		"BM25 server":              {`{"result": [[{"id": "7", "title": "Lima", "text": "a city", "contents": "\"Lima\"\na city"}]]}`, []forager.Passage{bare}},
		"rLLM":                     {`{"results": [{"id": "7", "content": "Lima\na city", "score": 0.5}]}`, []forager.Passage{full}},
		"ASearcher":                {`{"result": [[{"contents": "a city", "url": "http://x"}]]}`, []forager.Passage{{ID: "http://x", Text: "a city"}}},
		"online proxy, no id":      {`{"result": [[{"document": {"contents": "\"Lima\"\na city"}}, null]]}`, []forager.Passage{{ID: "pa8933e042f90", Title: "Lima", Text: "a city"}}},
		"nothing found":            {`{"result": [[]]}`, []forager.Passage{}},
		"nothing found, bare list": {`{"result": []}`, []forager.Passage{}},
		"more than asked for":      {`{"result": [[{"id":"1"},{"id":"2"},{"id":"3"},{"id":"4"}]]}`, []forager.Passage{{ID: "1"}, {ID: "2"}, {ID: "3"}}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.answer) }))
		got, err := mustClient(t, server.URL, nil).Search(context.Background(), []string{"q"}, 3)
		server.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got[0], c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got[0], c.want)
		}
	}
	for name, answer := range map[string]string{
		"not JSON": `<html>`, "other JSON": `{"hits": []}`, "too few lists": `{"result": [[]]}`, "no lists": `{"result": [1, 2]}`,
	} {
		if results, err := decodeResults([]byte(answer), 2); err == nil {
			t.Errorf("%s was read as %v", name, results)
		}
	}
}

func TestClientRetries(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case !strings.Contains(string(body), `"Lima"`):
			t.Errorf("attempt with body %q", body)
		case calls.Add(1) == 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case calls.Load() == 2:
			w.WriteHeader(http.StatusBadGateway)
		default:
			_, _ = io.WriteString(w, `{"result": [[{"id": "1", "contents": "x"}]]}`)
		}
	}))
	defer server.Close()
	got, err := mustClient(t, server.URL, nil).Search(context.Background(), []string{"Lima"}, 1)
	if err != nil || calls.Load() != 3 || got[0][0].ID != "1" {
		t.Errorf("%v, %v after %d calls", got, err, calls.Load())
	}
}

func TestClientErrors(t *testing.T) {
	var calls atomic.Int32
	status := http.StatusBadRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error": "no such thing"}`)
	}))
	ask := func(r *HTTPRetriever) error {
		_, err := r.Search(context.Background(), []string{"q"}, 1)
		return err
	}
	r := mustClient(t, server.URL, func(c *ClientConfig) { c.Retries = 2 })
	if err := ask(r); err == nil || !strings.Contains(err.Error(), "no such thing") || calls.Load() != 1 {
		t.Errorf("400: %v after %d calls", err, calls.Load())
	}
	status = http.StatusTooManyRequests
	if err := ask(r); !errors.Is(err, forager.ErrFull) || calls.Load() != 4 {
		t.Errorf("429: %v after %d calls", err, calls.Load())
	}
	status = http.StatusOK
	if err := ask(mustClient(t, server.URL, func(c *ClientConfig) { c.MaxResponseBytes = 5 })); err == nil || !strings.Contains(err.Error(), "larger than 5 bytes") {
		t.Errorf("large answer: %v", err)
	}
	server.Close()
	if err := ask(r); err == nil || !strings.Contains(err.Error(), "does not answer after 3 attempts") || !strings.Contains(err.Error(), "forager retriever") {
		t.Errorf("no server: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Search(cancelled, []string{"q"}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	many := mustClient(t, server.URL, func(c *ClientConfig) { c.BatchSize, c.MaxInFlight, c.Retries = 1, 2, 0 })
	if _, err := many.Search(context.Background(), []string{"a", "b", "c", "d"}, 1); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("several calls: %v", err)
	}
}

// A server that accepts but never answers is given up after Timeout.
func TestClientTimeout(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	r := mustClient(t, server.URL, func(c *ClientConfig) { c.Timeout, c.Retries = 20*time.Millisecond, 1 })
	_, err := r.Search(context.Background(), []string{"q"}, 1)
	if err == nil || !strings.Contains(err.Error(), "does not answer after 2 attempts") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 24 * time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", header, got, want)
		}
	}
}

func TestClientConfig(t *testing.T) {
	for _, change := range []func(*ClientConfig){
		func(c *ClientConfig) { c.URL = "localhost:8000" }, func(c *ClientConfig) { c.URL = "" }, func(c *ClientConfig) { c.Dialect = "x" },
		func(c *ClientConfig) { c.Timeout = 0 }, func(c *ClientConfig) { c.Retries = -1 }, func(c *ClientConfig) { c.MaxInFlight = 0 },
		func(c *ClientConfig) { c.BatchSize = 0 }, func(c *ClientConfig) { c.MaxWait = 0 }, func(c *ClientConfig) { c.MaxResponseBytes = 0 },
	} {
		config := DefaultClientConfig()
		change(&config)
		if _, err := NewHTTPRetriever(config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
}
