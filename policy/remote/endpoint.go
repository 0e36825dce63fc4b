package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sony/gobreaker/v2"

	"github.com/forager-rl/forager/policy"
)

// endpoint is one server: its address, what it has loaded, and how it does.
type endpoint struct {
	url     string // without a final slash or /v1
	keyEnv  string
	client  *http.Client
	slots   chan struct{} // one per completion under way
	waiting atomic.Int64  // completions under way or waiting for a slot
	breaker *gobreaker.CircuitBreaker[policy.Completion]

	// Found out by Open.
	model   string
	context int // positions, prompt and completion together; 0 means unknown

	loading chan struct{} // capacity 1: held while weights are brought
	held    atomic.Pointer[Weights]
	old     []Weights // adapters that are still loaded, oldest first; guarded by loading
}

func newEndpoint(address string, cfg Config, client *http.Client, logger *slog.Logger) *endpoint {
	address = strings.TrimSuffix(strings.TrimRight(address, "/"), "/v1")
	return &endpoint{
		url: address, keyEnv: cfg.APIKeyEnv, client: client,
		slots: make(chan struct{}, cfg.MaxInFlight), loading: make(chan struct{}, 1),
		breaker: gobreaker.NewCircuitBreaker[policy.Completion](gobreaker.Settings{
			Name: address, MaxRequests: 1, Timeout: cfg.BreakerPause,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(cfg.BreakerFailures) },
			// A busy server is not ill, a bad request is not the server's fault, and
			// a caller that leaves says nothing.
			IsSuccessful: func(err error) bool {
				retry, _ := again(err)
				return err == nil || !retry || saturated(err)
			},
			IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
			OnStateChange: func(name string, from, to gobreaker.State) {
				logger.Warn("inference server", "url", name, "breaker", to.String(), "before", from.String())
			},
		}),
	}
}

// key reads the API key anew, so that it is in no configuration file or log.
func (e *endpoint) key() string {
	if e.keyEnv == "" {
		return ""
	}
	return os.Getenv(e.keyEnv)
}

// open tells that the server is being left alone.
func (e *endpoint) open() bool { return e.breaker.State() == gobreaker.StateOpen }

// acquire waits for a free slot.
func (e *endpoint) acquire(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a free slot of %s: %w", e.url, ctx.Err())
	}
}

func (e *endpoint) release() { <-e.slots }

// bring gives the server weights, unless it has them or newer ones already.
// Adapters but for this version's and the one before are taken away: completions
// that began before the swap end on theirs.
func (e *endpoint) bring(ctx context.Context, d dialect, w *Weights, limit func(context.Context) (context.Context, context.CancelFunc)) error {
	if w == nil || e.has(w) {
		return nil
	}
	select {
	case e.loading <- struct{}{}:
		defer func() { <-e.loading }()
	case <-ctx.Done():
		return fmt.Errorf("wait until %s has loaded weights: %w", e.url, ctx.Err())
	}
	if e.has(w) {
		return nil
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	if err := d.load(ctx, e, *w); err != nil {
		return fmt.Errorf("load weights v%d: %w", w.Version, err)
	}
	e.held.Store(w)
	if !w.Adapter {
		return nil
	}
	if n := len(e.old); n == 0 || e.old[n-1].Version != w.Version {
		e.old = append(e.old, *w)
	}
	for len(e.old) > 2 {
		if err := d.unload(ctx, e, e.old[0]); err != nil && !rejected(err, http.StatusNotFound) && !rejected(err, http.StatusBadRequest) {
			return nil // the newest is there, which is what counts; tried again with the next
		}
		e.old = e.old[1:]
	}
	return nil
}

func (e *endpoint) has(w *Weights) bool {
	held := e.held.Load()
	return held != nil && held.Name == w.Name && held.Version >= w.Version
}

// forget notes that the server has lost what it was given.
func (e *endpoint) forget() { e.held.Store(nil) }
