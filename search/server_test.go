package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

func mustServer(t *testing.T, r Retriever, change func(*ServerConfig)) *Server {
	t.Helper()
	config := DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	if change != nil {
		change(&config)
	}
	s, err := NewServer(config, r, len(countries), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func post(t *testing.T, s *Server, body string) (code int, answer string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/retrieve", strings.NewReader(body)))
	return recorder.Code, strings.TrimSpace(recorder.Body.String())
}

func get(t *testing.T, s *Server, path string) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	if recorder.Code != http.StatusOK {
		t.Errorf("GET %s: %d", path, recorder.Code)
	}
	return recorder.Body.String()
}

// What foreign clients send, byte for byte, and what they need back.
func TestForeignClients(t *testing.T) {
	s := mustServer(t, mustBM25(t, countries, DefaultBM25Config()), func(c *ServerConfig) { c.TopK = 1 })
	const lima = `{"id":"a","contents":"\"Lima\"\nLima is a city. It is the capital of Peru."}`
	const chile = `{"id":"b","contents":"\"Chile\"\nChile is a country in South America. The capital is Santiago."}`
	for name, c := range map[string]struct{ body, want string }{
		"Search-R1, scores off":         {`{"queries": ["Lima", "Chile"], "topk": 1, "return_scores": false}`, `{"result":[[` + lima + `],[` + chile + `]]}`},
		"slime: one query, scores off":  {`{"queries": ["Lima"], "topk": 1, "return_scores": false}`, `{"result":[[` + lima + `]]}`},
		"two queries, scores off":       {`{"queries": ["zzz", ""], "topk": 1, "return_scores": false}`, `{"result":[[],[]]}`},
		"topk null, scores left out":    {`{"queries": ["Lima"], "topk": null}`, `{"result":[[` + lima + `]]}`},
		"topk zero":                     {`{"queries": ["Lima"], "topk": 0}`, `{"result":[[` + lima + `]]}`},
		"SkyRL: query":                  {`{"query": "Lima", "topk": 1, "return_scores": false}`, `{"result":[[` + lima + `]]}`},
		"rLLM: query and top_k":         {`{"query": "Lima", "top_k": 1}`, `{"result":[[` + lima + `]]}`},
		"rLLM: query and k":             {`{"query": "Lima", "k": 1}`, `{"result":[[` + lima + `]]}`},
		"query as a list, unknown keys": {`{"query": ["Chile"], "rerank_topk": 7}`, `{"result":[[` + chile + `]]}`},
		"queries as text":               {`{"queries": "Chile"}`, `{"result":[[` + chile + `]]}`},
		"no queries":                    {`{"queries": []}`, `{"result":[]}`},
	} {
		if code, got := post(t, s, c.body); code != http.StatusOK || got != c.want {
			t.Errorf("%s: %d\n got %s\nwant %s", name, code, got, c.want)
		}
	}
	code, got := post(t, s, `{"queries": ["Lima"], "topk": 2, "return_scores": true}`)
	var scored struct {
		Result [][]struct {
			Document map[string]string `json:"document"`
			Score    float64           `json:"score"`
		} `json:"result"`
	}
	if err := json.Unmarshal([]byte(got), &scored); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	list := scored.Result[0]
	if len(list) != 2 || len(list[0].Document) != 2 || list[0].Document["id"] != "a" || !(list[0].Score > list[1].Score && list[1].Score > 0) {
		t.Errorf("scores on: %s", got)
	}
}

func TestServerLimits(t *testing.T) {
	s := mustServer(t, mustBM25(t, countries, DefaultBM25Config()), func(c *ServerConfig) {
		c.MaxBodyBytes, c.MaxQueries, c.MaxQueryBytes, c.MaxTopK = 200, 2, 10, 5
	})
	for body, want := range map[string]int{
		`{"queries": ["` + strings.Repeat("x", 300) + `"]}`: http.StatusRequestEntityTooLarge,
		`{"queries": ["a","b","c"]}`:                        http.StatusBadRequest,
		`{"queries": ["12345678901"]}`:                      http.StatusBadRequest,
		`{"queries": ["a"], "topk": 6}`:                     http.StatusBadRequest,
		`{"queries": ["a"], "topk": -1}`:                    http.StatusBadRequest,
		`{"queries": [1]}`:                                  http.StatusBadRequest,
		`{"queries": ["a"], "query": "a"}`:                  http.StatusBadRequest,
		`{}`:                                                http.StatusBadRequest,
		`not json`:                                          http.StatusBadRequest,
		``:                                                  http.StatusBadRequest,
	} {
		code, answer := post(t, s, body)
		var reason struct{ Error string }
		if code != want || json.Unmarshal([]byte(answer), &reason) != nil || reason.Error == "" {
			t.Errorf("%.40s: %d %s, want %d with an error as JSON", body, code, answer, want)
		}
	}
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/retrieve", nil))
	if recorder.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET /retrieve: %d", recorder.Code)
	}
}

// blocking answers nothing until it is released.
type blocking struct{ entered, release chan struct{} }

func newBlocking() *blocking { return &blocking{make(chan struct{}), make(chan struct{})} }

func (b *blocking) Search(ctx context.Context, queries []string, _ int) ([][]forager.Passage, error) {
	b.entered <- struct{}{}
	select {
	case <-b.release:
		return make([][]forager.Passage, len(queries)), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestSaturationAndStats(t *testing.T) {
	slow := newBlocking()
	s := mustServer(t, slow, func(c *ServerConfig) { c.MaxInFlight = 1 })
	done := make(chan int)
	go func() {
		code, _ := post(t, s, `{"query": "a"}`)
		done <- code
	}()
	<-slow.entered
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/retrieve", strings.NewReader(`{"query": "b"}`)))
	if recorder.Code != http.StatusTooManyRequests || recorder.Header().Get("Retry-After") != "1" {
		t.Errorf("saturated: %d, Retry-After %q", recorder.Code, recorder.Header().Get("Retry-After"))
	}
	if !strings.Contains(get(t, s, "/healthz"), "ok") {
		t.Error("not healthy while saturated")
	}
	close(slow.release)
	if code := <-done; code != http.StatusOK {
		t.Errorf("the first request: %d", code)
	}
	if code, _ := post(t, s, `{"query": "a"}`); code != http.StatusOK { // from the cache, else it would block
		t.Errorf("the repeated request: %d", code)
	}
	_, _ = post(t, s, `{}`)
	var stats Stats
	if err := json.Unmarshal([]byte(get(t, s, "/stats")), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Passages != 4 || stats.Requests != 4 || stats.Rejected != 1 || stats.Failed != 1 || stats.Queries != 2 || stats.CacheHits != 1 || stats.CacheMisses != 1 {
		t.Errorf("%+v", stats)
	}
	metrics := get(t, s, "/metrics")
	for _, want := range []string{`forager_search_requests_total{code="429"} 1`, "forager_search_queries_total 2", "forager_search_cache_hits_total 1", "forager_search_passages 4"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestSearchTimeout(t *testing.T) {
	slow := newBlocking()
	s := mustServer(t, slow, func(c *ServerConfig) { c.Timeout = time.Millisecond })
	go func() { <-slow.entered }()
	if code, answer := post(t, s, `{"query": "a"}`); code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", code, answer)
	}
}

// serve runs a server until the test ends and gives its URL.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	address, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + address.String()
}

func TestRunAndShutdown(t *testing.T) {
	slow := newBlocking()
	s := mustServer(t, slow, nil)
	address, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	other := mustServer(t, slow, func(c *ServerConfig) { c.Listen = address.String() })
	if err := other.Run(context.Background()); !errors.Is(err, forager.ErrInUse) || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("port in use: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	answered := make(chan error, 1)
	go func() {
		response, err := http.Post("http://"+address.String()+"/retrieve", "application/json", bytes.NewBufferString(`{"query":"a"}`))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			err = errors.Join(err, response.Body.Close())
		}
		answered <- err
	}()
	<-slow.entered
	cancel() // the running request still gets its answer
	close(slow.release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", address.String(), time.Second); err == nil {
		t.Error("the port is still open")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Run(context.Background()); err == nil {
		t.Error("a closed server ran again")
	}
}

func TestShutdownIsBounded(t *testing.T) {
	slow := newBlocking()
	s := mustServer(t, slow, func(c *ServerConfig) { c.ShutdownTimeout = time.Millisecond })
	address, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	go func() {
		response, err := http.Post("http://"+address.String()+"/retrieve", "application/json", bytes.NewBufferString(`{"query":"a"}`))
		if err == nil {
			_ = response.Body.Close()
		}
	}()
	<-slow.entered
	cancel()
	if err := <-ended; err != nil { // although the request never ends by itself
		t.Error(err)
	}
}

func TestServerConfig(t *testing.T) {
	for _, change := range []func(*ServerConfig){
		func(c *ServerConfig) { c.Listen = "8000" }, func(c *ServerConfig) { c.TopK = 0 }, func(c *ServerConfig) { c.TopK = 101 },
		func(c *ServerConfig) { c.CacheQueries = -1 }, func(c *ServerConfig) { c.Timeout = 0 },
	} {
		config := DefaultServerConfig()
		change(&config)
		if err := config.Validate(); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
	if err := DefaultServerConfig().Validate(); err != nil {
		t.Error(err)
	}
}
