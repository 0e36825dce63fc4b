package search

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/forager-rl/forager"
)

// ClientConfig sets how an HTTPRetriever talks to its server.
type ClientConfig struct {
	// URL is the address of the retriever, with or without the path /retrieve.
	URL string `mapstructure:"url"`
	// Dialect is the form of the requests: search-r1, skyrl or rllm.
	Dialect Dialect `mapstructure:"dialect"`
	// Timeout bounds one attempt, from the first byte sent to the last received.
	Timeout time.Duration `mapstructure:"timeout"`
	// Retries is how often a call is repeated after no answer, 429 or 5xx; 0 or more.
	Retries int `mapstructure:"retries"`
	// MaxWait bounds the pause before a retry, including what Retry-After asks for.
	MaxWait time.Duration `mapstructure:"max_wait"`
	// MaxInFlight bounds the calls under way at once; at least 1.
	MaxInFlight int `mapstructure:"max_in_flight"`
	// BatchSize is the most queries sent in one call, where the dialect carries lists; at least 1.
	BatchSize int `mapstructure:"batch_size"`
	// MaxResponseBytes bounds the size of an answer; larger ones are errors.
	MaxResponseBytes int64 `mapstructure:"max_response_bytes"`
	// FindTimeout bounds how long a call goes on, beyond its retries, while none of the
	// run's own retrievers answers; another may be found, or the same one come back.
	FindTimeout time.Duration `mapstructure:"find_timeout"`
	// TLS is how an HTTPS server is known; nil: by the authorities of this machine.
	TLS *tls.Config `mapstructure:"-"`
	// Token is a bearer token, sent to HTTPS servers alone; empty: none.
	Token string `mapstructure:"-"`
}

// DefaultClientConfig talks to a retriever on this machine.
func DefaultClientConfig() ClientConfig {
	return ClientConfig{
		URL:              "http://127.0.0.1:8000/retrieve",
		Dialect:          DialectSearchR1,
		Timeout:          30 * time.Second,
		Retries:          4,
		MaxWait:          10 * time.Second,
		MaxInFlight:      32,
		BatchSize:        64,
		MaxResponseBytes: 32 << 20,
		FindTimeout:      30 * time.Second,
	}
}

// Validate reports the first setting out of range, or nil.
func (c ClientConfig) Validate() error {
	address, err := url.Parse(c.URL)
	switch {
	case err != nil || address.Host == "" || (address.Scheme != "http" && address.Scheme != "https"):
		return forager.WithHint(fmt.Errorf("retriever url %q is no http address", c.URL), "write it as http://host:port")
	case c.Dialect != DialectSearchR1 && c.Dialect != DialectSkyRL && c.Dialect != DialectRLLM:
		return fmt.Errorf("retriever dialect %q is unknown, expected %s, %s or %s", c.Dialect, DialectSearchR1, DialectSkyRL, DialectRLLM)
	case c.Timeout <= 0:
		return fmt.Errorf("retriever timeout is %v, expected more than 0", c.Timeout)
	case c.Retries < 0:
		return fmt.Errorf("retries is %d, expected 0 or more", c.Retries)
	case c.MaxWait <= 0:
		return fmt.Errorf("max_wait is %v, expected more than 0", c.MaxWait)
	case c.MaxInFlight < 1:
		return fmt.Errorf("max_in_flight is %d, expected 1 or more", c.MaxInFlight)
	case c.BatchSize < 1:
		return fmt.Errorf("batch_size is %d, expected 1 or more", c.BatchSize)
	case c.FindTimeout < 0:
		return fmt.Errorf("find_timeout is %v, expected 0 or more", c.FindTimeout)
	case c.MaxResponseBytes < 1:
		return fmt.Errorf("max_response_bytes is %d, expected 1 or more", c.MaxResponseBytes)
	}
	return nil
}

// HTTPRetriever is a Retriever that asks a server over POST /retrieve:
// Forager's own, or any that speaks one of the dialects.
type HTTPRetriever struct {
	config  ClientConfig
	servers *servers
	client  *http.Client
	slots   chan struct{}
}

const (
	// firstPause is the pause before the first retry; it doubles with each.
	firstPause = 100 * time.Millisecond
	// findPause is the longest pause while no retriever of the run answers.
	findPause = time.Second
	// dialTimeout bounds the wait for a connection: a machine that is gone does not
	// refuse one.
	dialTimeout = 5 * time.Second
)

// NewHTTPRetriever makes a retriever; it does not connect yet.
func NewHTTPRetriever(config ClientConfig) (*HTTPRetriever, error) {
	return newHTTPRetriever(config, nil)
}

// NewFoundRetriever makes a retriever that asks the servers which find gives, at
// the moment that of config.URL. When that one does not answer, is saturated or
// fails, the next retry goes to another.
func NewFoundRetriever(config ClientConfig, find Finder) (*HTTPRetriever, error) {
	return newHTTPRetriever(config, find)
}

func newHTTPRetriever(config ClientConfig, find Finder) (*HTTPRetriever, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	servers, err := newServers(config.URL, find)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if config.TLS != nil {
		transport.TLSClientConfig = config.TLS
	}
	transport.MaxIdleConnsPerHost = config.MaxInFlight
	transport.MaxConnsPerHost = config.MaxInFlight
	transport.DialContext = (&net.Dialer{Timeout: min(config.Timeout, dialTimeout)}).DialContext
	return &HTTPRetriever{
		config:  config,
		servers: servers,
		client:  &http.Client{Transport: transport, Timeout: config.Timeout},
		slots:   make(chan struct{}, config.MaxInFlight),
	}, nil
}

// Close lets go of idle connections. It is safe to call twice.
func (r *HTTPRetriever) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

// Search asks the server, in as many calls as the dialect and BatchSize need,
// side by side. The first failure cancels the rest and is returned; a server
// that stays saturated gives forager.ErrFull.
func (r *HTTPRetriever) Search(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	if k < 1 {
		if k == 0 {
			return make([][]forager.Passage, len(queries)), nil
		}
		return nil, fmt.Errorf("search: k is %d, expected 0 or more", k)
	}
	size := r.config.BatchSize
	if r.config.Dialect.single() {
		size = 1
	}
	if len(queries) <= size {
		if len(queries) == 0 {
			return nil, nil
		}
		return r.call(ctx, queries, k)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([][]forager.Passage, len(queries))
	var group sync.WaitGroup
	for from := 0; from < len(queries); from += size {
		to := min(from+size, len(queries))
		select { // as many goroutines as calls may be under way
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			group.Wait()
			return nil, context.Cause(ctx)
		}
		group.Go(func() {
			found, err := r.attempts(ctx, queries[from:to], k)
			<-r.slots
			if err != nil {
				cancel(err)
				return
			}
			copy(results[from:to], found)
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return results, nil
}

// call is one batch of queries, once a slot is free.
func (r *HTTPRetriever) call(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("search: wait for a free call to %s: %w", r.servers.current(), ctx.Err())
	}
	defer func() { <-r.slots }()
	return r.attempts(ctx, queries, k)
}

// attempts repeats a call until it succeeds, fails for good or has been
// repeated often enough.
func (r *HTTPRetriever) attempts(ctx context.Context, queries []string, k int) ([][]forager.Passage, error) {
	body, err := json.Marshal(r.config.Dialect.request(queries, k))
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	begun := time.Now()
	for attempt := 0; ; attempt++ {
		address := r.servers.current()
		results, failure := r.once(ctx, address, body, len(queries), k)
		if failure == nil {
			return results, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("search: %w", context.Cause(ctx))
		}
		longest, again := r.config.MaxWait, failure.again && attempt < r.config.Retries
		if failure.again && !again && r.servers.find != nil && time.Since(begun) < r.config.FindTimeout {
			longest, again = min(longest, findPause), true
		}
		if !again {
			return nil, r.explain(address, failure, attempt)
		}
		pause := firstPause << min(attempt, 20)
		pause = pause/2 + rand.N(pause/2+1) // spread out, so that actors do not return in step
		switch moved := r.servers.moveOn(ctx, address); {
		case !moved:
			pause = max(pause, failure.after)
		case failure.unheard && attempt < r.config.Retries:
			pause = 0
		}
		timer := time.NewTimer(min(pause, longest))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("search: wait to ask %s again: %w", address, context.Cause(ctx))
		}
	}
}

// failure is why an attempt did not give results.
type failure struct {
	err      error
	again    bool          // worth a retry
	after    time.Duration // not sooner than this
	unheard  bool          // nobody answered
	saturate bool          // 429
	refused  bool          // 401 or 403
}

// once is one HTTP exchange.
func (r *HTTPRetriever) once(ctx context.Context, address string, body []byte, queries, k int) ([][]forager.Passage, *failure) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, &failure{err: err}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if r.config.Token != "" && request.URL.Scheme == "https" {
		request.Header.Set("Authorization", "Bearer "+r.config.Token)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, &failure{err: plain(err), again: !distrusted(err), unheard: true}
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, r.config.MaxResponseBytes+1))
	if err != nil {
		return nil, &failure{err: fmt.Errorf("answer broke off: %w", plain(err)), again: true}
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response, answer)
	}
	if int64(len(answer)) > r.config.MaxResponseBytes {
		return nil, &failure{err: fmt.Errorf("answer is larger than %d bytes", r.config.MaxResponseBytes)}
	}
	results, err := decodeResults(answer, queries)
	if err != nil {
		return nil, &failure{err: err}
	}
	for i := range results { // some servers choose the depth themselves
		results[i] = results[i][:min(k, len(results[i]))]
	}
	return results, nil
}

// refusal reads an answer that is no result.
func refusal(response *http.Response, answer []byte) *failure {
	text := clip(strings.Join(strings.Fields(string(answer)), " "), 200)
	code := response.StatusCode
	return &failure{
		err:      fmt.Errorf("answered %s: %s", response.Status, text),
		again:    code == http.StatusTooManyRequests || code >= 500,
		after:    retryAfter(response.Header.Get("Retry-After"), time.Now()),
		saturate: code == http.StatusTooManyRequests,
		refused:  code == http.StatusUnauthorized || code == http.StatusForbidden,
	}
}

// retryAfter reads the header in both of its forms (RFC 9110, 10.2.3).
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 24*3600)) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

// explain names the server and the next step.
func (r *HTTPRetriever) explain(address string, f *failure, attempt int) error {
	tries := ""
	if attempt > 0 {
		tries = fmt.Sprintf(" after %d attempts", attempt+1)
	}
	switch {
	case distrusted(f.err):
		return forager.WithHint(fmt.Errorf("search: retriever %s%s: %w", address, tries, f.err),
			"its certificate and our authority do not fit: check security.dir of both, or write http:// for one without credentials")
	case f.refused:
		return forager.WithHint(fmt.Errorf("search: retriever %s%s: %w", address, tries, f.err), "check http.token in security.dir of both")
	case f.unheard:
		return forager.WithHint(fmt.Errorf("search: retriever %s does not answer%s: %w", address, tries, f.err),
			"start it with `forager retriever` or correct the retriever's url")
	case f.saturate:
		return forager.WithHint(fmt.Errorf("search: retriever %s is saturated%s: %w: %w", address, tries, f.err, forager.ErrFull),
			"lower max_in_flight or start more retrievers")
	}
	return fmt.Errorf("search: retriever %s%s: %w", address, tries, f.err)
}

// distrusted reports whether the server's certificate did not convince us, which
// another try will not mend.
func distrusted(err error) bool {
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate)
}

// plain drops the method and address that net/http repeats.
func plain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
