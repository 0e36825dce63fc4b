package remote

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

var ask = policy.Request{Session: 1, Context: []int32{'H'}, MaxTokens: 20, Stop: []string{"</answer>"}, Temperature: 1}

// refuse opens servers for training and wants one line that says what to do.
func refuse(t *testing.T, cfg Config, use Use, words ...string) {
	t.Helper()
	_, err := open(t, cfg, use)
	if !errors.Is(err, ErrUnsuitable) {
		t.Fatalf("error is %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
}

func TestUnfitForTraining(t *testing.T) {
	refuse(t, quick(newFake(t, LlamaCpp)), training, "llamacpp", "evaluation")
	refuse(t, quick(newFake(t, OpenAI)), training, "openai", "text")

	v := newFake(t, VLLM)
	v.noIDs = true
	refuse(t, quick(v), training, "return_token_ids", "0.10.2")

	v = newFake(t, VLLM)
	v.rawLogs = true
	mustOpen(t, quick(v), training) // raw is right at temperature 1
	mustOpen(t, quick(v), Use{Train: true, Temperature: 1, TopP: 0.9})
	refuse(t, quick(v), Use{Train: true, Temperature: 0.7}, "--logprobs-mode processed_logprobs", "0.7")

	v = newFake(t, VLLM) // processed log-probabilities are renormalised
	mustOpen(t, quick(v), Use{Train: true, Temperature: 0.7})
	refuse(t, quick(v), Use{Train: true, Temperature: 0.7, TopP: 0.9}, "episode.top_p")

	g := newFake(t, SGLang)
	mustOpen(t, quick(g), Use{Train: true, Temperature: 0.7, TopP: 0.9})
	g.rawLogs = true
	refuse(t, quick(g), Use{Train: true, Temperature: 0.7}, "SGLANG_RETURN_ORIGINAL_LOGPROB")
}

func TestServersThatDoNotBelongTogether(t *testing.T) {
	_, err := open(t, quick(newFake(t, VLLM), newFake(t, SGLang)), Use{})
	if err == nil || !strings.Contains(err.Error(), "one kind") {
		t.Errorf("error is %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	cfg := quick()
	cfg.URLs = []string{"http://127.0.0.1:1"}
	_, err := open(t, cfg, Use{})
	if err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:1") || !strings.Contains(err.Error(), "start the server") {
		t.Errorf("error is %v", err)
	}
}

// A server that is still loading its model is waited for.
func TestServerThatStartsLate(t *testing.T) {
	f := newFake(t, LlamaCpp)
	f.fail(func(path string, n int, w http.ResponseWriter) bool {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	mustOpen(t, quick(f), Use{})
}

// die ends the connection in the middle of an answer.
func die(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte(`{"model":"tiny","choices":[{"tok`))
	w.(http.Flusher).Flush()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

func TestAttemptsAreRepeated(t *testing.T) {
	for name, trouble := range map[string]func(http.ResponseWriter){
		"429": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"503":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"500":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"death": die,
		"aborted": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"choices":[{"finish_reason":"abort","token_ids":[]}]}`))
		},
		"slow": func(http.ResponseWriter) { time.Sleep(150 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, VLLM)
			cfg := quick(f)
			cfg.Timeout, cfg.RetryFor = 100*time.Millisecond, 5*time.Second
			s := mustOpen(t, cfg, Use{})
			f.fail(func(_ string, n int, w http.ResponseWriter) bool {
				if n < 3 {
					trouble(w)
				}
				return n < 3
			})
			if _, err := s.NewGenerator().Generate(t.Context(), ask); err != nil {
				t.Fatal(err)
			}
			if n := len(f.completions()); n != 3 {
				t.Errorf("%d attempts, want 3", n)
			}
		})
	}
}

func TestWhatIsNotRepeated(t *testing.T) {
	f := newFake(t, VLLM)
	s := mustOpen(t, quick(f), Use{})
	f.fail(func(_ string, _ int, w http.ResponseWriter) bool {
		http.Error(w, `{"error":{"message":"prompt is too long"}}`, http.StatusBadRequest)
		return true
	})
	_, err := s.NewGenerator().Generate(t.Context(), ask)
	if err == nil || !strings.Contains(err.Error(), "prompt is too long") || len(f.completions()) != 1 {
		t.Errorf("%d attempts: %v", len(f.completions()), err)
	}

	f.fail(func(_ string, _ int, w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	_, err = s.NewGenerator().Generate(t.Context(), ask)
	if !errors.Is(err, forager.ErrFull) || len(f.completions()) < 5 {
		t.Errorf("%d attempts: %v", len(f.completions()), err)
	}
}

func TestCancelledCallEndsAtOnce(t *testing.T) {
	f := newFake(t, VLLM)
	s := mustOpen(t, quick(f), Use{})
	f.mu.Lock()
	f.hold = make(chan struct{})
	f.mu.Unlock()
	defer close(f.hold)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := s.NewGenerator().Generate(ctx, ask); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}

func TestFailOverAndBreaker(t *testing.T) {
	ill, well := newFake(t, VLLM), newFake(t, VLLM)
	cfg := quick(ill, well)
	cfg.BreakerFailures = 2
	s := mustOpen(t, cfg, Use{})
	g := s.NewGenerator()
	ill.fail(func(_ string, _ int, w http.ResponseWriter) bool { die(w); return true })
	for session := range uint64(6) {
		request := ask
		request.Session = session
		if _, err := g.Generate(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(ill.completions()); n != 2 {
		t.Errorf("the ill server was asked %d times, want 2", n)
	}
	ill.fail(nil)
	time.Sleep(2 * cfg.BreakerPause)
	for session := range uint64(6) {
		request := ask
		request.Session = 100 + session
		if _, err := g.Generate(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if len(ill.completions()) == 0 {
		t.Error("the server that is well again was never asked")
	}
}

// A single server that dies and comes back costs time, not episodes, also while
// its breaker is open.
func TestServerComesBack(t *testing.T) {
	f := newFake(t, VLLM)
	cfg := quick(f)
	cfg.BreakerFailures, cfg.RetryFor = 2, 10*time.Second
	s := mustOpen(t, cfg, Use{})
	f.fail(func(_ string, _ int, w http.ResponseWriter) bool { die(w); return true })
	time.AfterFunc(150*time.Millisecond, func() { f.fail(nil) })
	g := s.NewGenerator()
	var wait sync.WaitGroup
	for session := range uint64(8) {
		wait.Go(func() {
			request := ask
			request.Session = session
			if _, err := g.Generate(t.Context(), request); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func TestSessionsStayAndSlotsAreBounded(t *testing.T) {
	fakes := []*fake{newFake(t, VLLM), newFake(t, VLLM)}
	cfg := quick(fakes...)
	cfg.MaxInFlight = 2
	s := mustOpen(t, cfg, Use{})
	for _, f := range fakes {
		f.mu.Lock()
		f.hold = make(chan struct{})
		f.mu.Unlock()
	}
	g := s.NewGenerator()
	var wait sync.WaitGroup
	for session := range uint64(12) {
		wait.Go(func() {
			request := ask
			request.Session, request.Context = session, []int32{int32(session)}
			for range 2 {
				if _, err := g.Generate(t.Context(), request); err != nil {
					t.Error(err)
				}
			}
			g.Release(session)
		})
	}
	time.Sleep(50 * time.Millisecond)
	for _, f := range fakes {
		close(f.hold)
	}
	wait.Wait()
	seen := map[float64]*fake{}
	for _, f := range fakes {
		if f.most > 2 {
			t.Errorf("%d completions at once, want at most 2", f.most)
		}
		if n := len(f.completions()); n != 12 {
			t.Errorf("%d of 24 completions on one server, want 12", n)
		}
		for _, c := range f.completions() {
			session := c.body["prompt"].([]any)[0].(float64)
			if seen[session] != nil && seen[session] != f {
				t.Errorf("session %g went to two servers", session)
			}
			seen[session] = f
		}
	}
	if len(g.sessions) != 0 {
		t.Errorf("%d sessions are kept after release", len(g.sessions))
	}
}
