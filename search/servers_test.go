package search

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// farm is retrievers that come and go, and who finds them.
type farm struct {
	mu    sync.Mutex
	there []string
	asked int
}

func (f *farm) find(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if len(f.there) == 0 {
		return nil, forager.ErrNotFound
	}
	return f.there, nil
}

func (f *farm) set(urls ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there = urls
}

func answering(t *testing.T, hits *atomic.Int64) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		_, _ = w.Write([]byte(`{"result": [[]]}`))
	}))
	t.Cleanup(s.Close)
	return s
}

// TestRetrieverMovesOn: when the retriever that is asked dies, callers ask
// another that is there, and all of them the same.
func TestRetrieverMovesOn(t *testing.T) {
	var first, second atomic.Int64
	a, b := answering(t, &first), answering(t, &second)
	var f farm
	f.set(b.URL, a.URL)
	config := DefaultClientConfig()
	config.URL, config.MaxWait = a.URL, time.Millisecond
	r, err := NewFoundRetriever(config, f.find)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	search := func() error {
		_, err := r.Search(t.Context(), []string{"q"}, 1)
		return err
	}
	if err := search(); err != nil || first.Load() != 1 {
		t.Fatalf("%d asked, %v", first.Load(), err)
	}
	a.Close()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if err := search(); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if second.Load() != 8 || f.asked != 1 {
		t.Errorf("the other answered %d of 8, found after %d questions", second.Load(), f.asked)
	}
}

// TestRetrieverComesBack: while none answers a call goes on for FindTimeout, and
// finds one that is started meanwhile at another address.
func TestRetrieverComesBack(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	var hits atomic.Int64
	late := answering(t, &hits)
	var f farm
	config := DefaultClientConfig()
	config.URL, config.MaxWait, config.Retries = dead.URL, time.Millisecond, 1
	calls := 0
	r, err := NewFoundRetriever(config, func(ctx context.Context) ([]string, error) {
		if calls++; calls == 5 {
			f.set(late.URL)
		}
		return f.find(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Search(t.Context(), []string{"q"}, 1); err != nil || hits.Load() != 1 {
		t.Errorf("%d asked, %v", hits.Load(), err)
	}
}

// TestRetrieverGivesUp: the search for another one ends.
func TestRetrieverGivesUp(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	config := DefaultClientConfig()
	config.URL, config.MaxWait, config.FindTimeout = dead.URL, time.Millisecond, 20*time.Millisecond
	r, err := NewFoundRetriever(config, (&farm{}).find)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Search(t.Context(), []string{"q"}, 1); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Search(ctx, []string{"q"}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}
