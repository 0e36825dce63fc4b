package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// serve runs a handler until the test ends and waits until it can be reached.
func serve(t testing.TB, b *Bus, service string, handler func(context.Context, []byte) ([]byte, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, service, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve %s: %v", service, err)
		}
	})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := b.Request(t.Context(), service, nil); !errors.Is(err, ErrNoService) {
			return
		}
	}
	t.Fatalf("service %s did not come up", service)
}

func TestRequest(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	serve(t, a, "echo", func(_ context.Context, data []byte) ([]byte, error) { return append([]byte("echo "), data...), nil })
	reply, err := b.Request(t.Context(), "echo", []byte("hello"))
	if err != nil || string(reply) != "echo hello" {
		t.Fatalf("got %q, %v", reply, err)
	}
	_, err = b.Request(t.Context(), "nobody", nil)
	var hint *forager.HintError
	if !errors.Is(err, ErrNoService) || !errors.As(err, &hint) || !strings.Contains(err.Error(), "service nobody") {
		t.Errorf("no service: %v", err)
	}
	if _, err := b.Request(t.Context(), "a.b", nil); err == nil {
		t.Error("a name with a dot was taken")
	}
}

func TestErrorsOverTheWire(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	serve(t, a, "fail", func(_ context.Context, data []byte) ([]byte, error) {
		if sentinel, ok := wireErrors[string(data)]; ok {
			return nil, fmt.Errorf("table default,\nrow 7: %w", sentinel)
		}
		return nil, errors.New("something else")
	})
	for kind, sentinel := range wireErrors {
		_, err := b.Request(t.Context(), "fail", []byte(kind))
		if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), "service fail: table default,\nrow 7") {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	if _, err := b.Request(t.Context(), "fail", nil); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("got %v", err)
	}
}

func TestRequestIsBounded(t *testing.T) {
	a := open(t, func(c *Config) { c.Timeout = 500 * time.Millisecond })
	ended := make(chan error, 100)
	serve(t, a, "hang", func(ctx context.Context, data []byte) ([]byte, error) {
		if len(data) == 0 {
			return nil, nil
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Request(ctx, "hang", []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) { // the handler learned how long its caller waits
		t.Errorf("handler ended with %v", err)
	}
	if _, err := a.Request(t.Context(), "hang", []byte("x")); err == nil || !strings.Contains(err.Error(), "within 500ms") {
		t.Errorf("got %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	b := open(t, func(c *Config) { c.MaxPayload = 64 << 10 })
	large := make([]byte, 65<<10)
	serve(t, b, "large", func(context.Context, []byte) ([]byte, error) { return large, nil })
	for name, err := range map[string]error{
		"publish": b.Publish(t.Context(), Rollouts, "", large),
		"request": func() error { _, err := b.Request(t.Context(), "large", large); return err }(),
		"reply":   func() error { _, err := b.Request(t.Context(), "large", nil); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "raise max_payload") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestConcurrency: Config.Requests handlers run at once and no more; the others
// wait and are answered too.
func TestConcurrency(t *testing.T) {
	b := open(t, func(c *Config) { c.Requests = 3 })
	var running, most atomic.Int64
	entered, leave := make(chan struct{}, 9), make(chan struct{})
	serve(t, b, "count", func(_ context.Context, data []byte) ([]byte, error) {
		if len(data) == 0 {
			return nil, nil
		}
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		entered <- struct{}{}
		<-leave
		running.Add(-1)
		return data, nil
	})
	var requests sync.WaitGroup
	for range 9 {
		requests.Go(func() {
			if _, err := b.Request(t.Context(), "count", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-entered
	}
	close(leave)
	requests.Wait()
	if most.Load() != 3 {
		t.Errorf("%d handlers at once, want 3", most.Load())
	}
}

func TestNotices(t *testing.T) {
	a := open(t, nil)
	b := join(t, a, nil)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 1000)
	done := make(chan error, 1)
	go func() { done <- b.Watch(ctx, "weights", func(data []byte) { got <- string(data) }) }()
	for received := false; !received; { // nothing says when the watcher is there: ring until it hears
		if err := a.Notify(ctx, "weights", []byte("v1")); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-got:
			received = s == "v1"
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := a.Notify(t.Context(), "weights", []byte("nobody hears")); err != nil {
		t.Error(err)
	}
}
