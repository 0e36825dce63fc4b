package search

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// ServerConfig sets how a retriever is served.
type ServerConfig struct {
	// Listen is the address to listen on; loopback by default, port 0 picks a free
	// port. Off loopback it needs credentials, see security.dir.
	Listen string `mapstructure:"listen"`
	// TopK is the number of passages for a request that names none; at least 1.
	TopK int `mapstructure:"top_k"`
	// MaxTopK is the most passages that a request may ask for.
	MaxTopK int `mapstructure:"max_top_k"`
	// MaxQueries is the most queries in one request.
	MaxQueries int `mapstructure:"max_queries"`
	// MaxQueryBytes is the size of the longest query.
	MaxQueryBytes int `mapstructure:"max_query_bytes"`
	// MaxBodyBytes is the size of the largest request body.
	MaxBodyBytes int64 `mapstructure:"max_body_bytes"`
	// MaxInFlight is how many requests are worked on at once; more are answered 429 with Retry-After.
	MaxInFlight int `mapstructure:"max_in_flight"`
	// CacheQueries is how many answers are remembered; 0 remembers none.
	CacheQueries int `mapstructure:"cache_queries"`
	// Timeout bounds the search of one request and, apart from that, the transfer of each side.
	Timeout time.Duration `mapstructure:"timeout"`
	// ShutdownTimeout bounds how long running requests may take to finish at the end.
	ShutdownTimeout time.Duration `mapstructure:"shutdown_timeout"`
	// TLS makes the server speak HTTPS; nil: HTTP.
	TLS *tls.Config `mapstructure:"-"`
	// Protect stands before every request, to let through those that may ask; nil
	// lets through all.
	Protect func(http.Handler) http.Handler `mapstructure:"-"`
}

// DefaultServerConfig is Search-R1's port and depth, on loopback.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		Listen:          "127.0.0.1:8000",
		TopK:            3,
		MaxTopK:         100,
		MaxQueries:      4096,
		MaxQueryBytes:   8 << 10,
		MaxBodyBytes:    8 << 20,
		MaxInFlight:     64,
		CacheQueries:    10_000,
		Timeout:         30 * time.Second,
		ShutdownTimeout: 5 * time.Second,
	}
}

// Validate reports the first setting out of range, or nil.
func (c ServerConfig) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return forager.WithHint(fmt.Errorf("listen address %q: %w", c.Listen, err), "write it as host:port")
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"top_k", int64(c.TopK)}, {"max_top_k", int64(c.MaxTopK)}, {"max_queries", int64(c.MaxQueries)},
		{"max_query_bytes", int64(c.MaxQueryBytes)}, {"max_body_bytes", c.MaxBodyBytes},
		{"max_in_flight", int64(c.MaxInFlight)}, {"timeout", int64(c.Timeout)}, {"shutdown_timeout", int64(c.ShutdownTimeout)},
	} {
		if limit.value < 1 {
			return fmt.Errorf("%s is %d, expected more than 0", limit.name, limit.value)
		}
	}
	if c.TopK > c.MaxTopK {
		return fmt.Errorf("top_k %d is more than max_top_k %d", c.TopK, c.MaxTopK)
	}
	if c.CacheQueries < 0 {
		return fmt.Errorf("cache_queries is %d, expected 0 or more", c.CacheQueries)
	}
	return nil
}

// Server serves a Retriever over HTTP:
//
//	POST /retrieve   in every dialect; answers in Search-R1's form
//	GET  /healthz    200 while it serves
//	GET  /stats      counts and latencies as JSON
//	GET  /metrics    the same for Prometheus
type Server struct {
	config  ServerConfig
	cache   *Cache
	logger  *slog.Logger
	meter   *meter
	slots   chan struct{}
	handler http.Handler

	mutex    sync.Mutex
	listener net.Listener
	closed   bool
}

// NewServer makes a server for a retriever over so many passages and registers
// its metrics. It does not listen yet.
func NewServer(config ServerConfig, retriever Retriever, passages int, logger *slog.Logger, registry *prometheus.Registry) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config: config,
		cache:  Cached(retriever, config.CacheQueries),
		logger: logger,
		slots:  make(chan struct{}, config.MaxInFlight),
	}
	var err error
	if s.meter, err = newMeter(registry, passages, s.cache.Counts); err != nil {
		return nil, fmt.Errorf("register retriever metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /retrieve", s.retrieve)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.reply(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, http.StatusOK, s.meter.stats()) })
	mux.Handle("GET /metrics", s.meter.handler)
	s.handler = mux
	if config.Protect != nil {
		s.handler = config.Protect(mux)
	}
	return s, nil
}

// Listen opens the port ahead of Run, so that a port in use (an error that
// wraps forager.ErrInUse) is noticed first and the chosen port is known. It
// may be called again and then gives the same address.
func (s *Server) Listen() (net.Addr, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return nil, fmt.Errorf("retriever: %w", http.ErrServerClosed)
	}
	if s.listener == nil {
		listener, err := net.Listen("tcp", s.config.Listen)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, forager.WithHint(fmt.Errorf("retriever: port of %s is %w", s.config.Listen, forager.ErrInUse), "pick another with --listen")
		}
		if err != nil {
			return nil, fmt.Errorf("retriever: %w", err)
		}
		s.listener = listener
	}
	return s.listener.Addr(), nil
}

// Run serves until ctx is cancelled and running requests have ended, or
// ShutdownTimeout later, and returns nil then. A server runs once.
func (s *Server) Run(ctx context.Context) error {
	address, err := s.Listen()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           s.handler,
		TLSConfig:         s.config.TLS,
		ReadHeaderTimeout: s.config.Timeout,
		ReadTimeout:       s.config.Timeout,
		WriteTimeout:      3 * s.config.Timeout, // counts from the header: read, search, write
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	scheme, serve := "http", server.Serve
	if s.config.TLS != nil {
		scheme, serve = "https", func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	s.logger.Info("retriever serves", "url", scheme+"://"+address.String()+"/retrieve")
	failed := make(chan error, 1)
	go func() { failed <- serve(s.listener) }()
	select {
	case err = <-failed:
		err = fmt.Errorf("retriever: %w", err)
	case <-ctx.Done():
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownTimeout)
		defer cancel()
		if server.Shutdown(bound) != nil {
			s.logger.Warn("retriever cut off running requests", "waited", s.config.ShutdownTimeout)
			_ = server.Close() // of connections that did not end in time
		}
		<-failed
	}
	return errors.Join(err, s.Close())
}

// Close gives the port back. Running servers are ended through Run's context.
// It is safe to call twice.
func (s *Server) Close() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.closed = true
	if s.listener == nil {
		return nil
	}
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("retriever: %w", err)
	}
	return nil
}

// retrieve answers POST /retrieve.
func (s *Server) retrieve(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		s.refuse(w, http.StatusTooManyRequests, fmt.Errorf("%d requests are being answered: %w", s.config.MaxInFlight, forager.ErrFull))
		return
	}
	start := time.Now()
	queries, k, scores, code, err := s.read(w, r)
	if err != nil {
		s.refuse(w, code, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Timeout)
	defer cancel()
	results, err := s.cache.Search(ctx, queries, k)
	switch {
	case r.Context().Err() != nil:
		s.meter.answered(statusClientGone)
		return // nobody reads the answer
	case errors.Is(err, context.DeadlineExceeded):
		s.refuse(w, http.StatusServiceUnavailable, fmt.Errorf("search took longer than %v", s.config.Timeout))
		return
	case err != nil:
		s.logger.Error("search failed", "error", err)
		s.refuse(w, http.StatusInternalServerError, errors.New("search failed"))
		return
	}
	s.meter.searched(len(queries), time.Since(start))
	s.meter.answered(http.StatusOK)
	s.reply(w, http.StatusOK, encodeResults(results, scores))
}

// read checks a request against the limits.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (queries []string, k int, scores bool, code int, err error) {
	var request retrieveRequest
	code = http.StatusBadRequest
	if err = json.NewDecoder(http.MaxBytesReader(w, r.Body, s.config.MaxBodyBytes)).Decode(&request); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, 0, false, http.StatusRequestEntityTooLarge, fmt.Errorf("body is larger than %d bytes", large.Limit)
		}
		return nil, 0, false, code, fmt.Errorf("body is not the JSON of a request: %w", err)
	}
	if queries, err = request.queries(); err != nil {
		return nil, 0, false, code, err
	}
	if len(queries) > s.config.MaxQueries {
		return nil, 0, false, code, fmt.Errorf("%d queries, at most %d in one request", len(queries), s.config.MaxQueries)
	}
	for i, query := range queries {
		if len(query) > s.config.MaxQueryBytes {
			return nil, 0, false, code, fmt.Errorf("query %d has %d bytes, at most %d are read", i, len(query), s.config.MaxQueryBytes)
		}
	}
	if k, err = request.depth(s.config.TopK); err != nil {
		return nil, 0, false, code, err
	}
	if k > s.config.MaxTopK {
		return nil, 0, false, code, fmt.Errorf("topk is %d, at most %d", k, s.config.MaxTopK)
	}
	return queries, k, request.ReturnScores != nil && *request.ReturnScores, http.StatusOK, nil
}

// refuse answers with an error as JSON.
func (s *Server) refuse(w http.ResponseWriter, code int, err error) {
	s.meter.answered(code)
	s.reply(w, code, map[string]string{"error": err.Error()})
}

func (s *Server) reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		s.logger.Debug("answer not delivered", "error", err)
	}
}
