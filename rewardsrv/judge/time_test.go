package judge_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

// The tests here run in a bubble where time is simulated: hours pass at once and
// the same way each time.

// world is a pool over endpoints without a network.
func world(t *testing.T, change func(*judge.Config), endpoints judgetest.Transport, names ...string) (*judge.Pool, *log) {
	t.Helper()
	addresses := make([]string, len(names))
	for i, n := range names {
		addresses[i] = "http://" + n + "/v1"
	}
	return newPool(t, func(c *judge.Config, d *judge.Deps) {
		d.Transport = endpoints
		if change != nil {
			change(c)
		}
	}, addresses...)
}

func busy(after string) judgetest.Reply {
	return judgetest.Reply{Status: http.StatusTooManyRequests, Text: "slow down", Header: http.Header{"Retry-After": {after}}}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := "3"
		a := judgetest.Unconnected(t, func(c judgetest.Call) judgetest.Reply {
			if c.Number == 1 || after == "90" {
				return busy(after)
			}
			return judgetest.Reply{Text: "yes"}
		})
		pool, _ := world(t, func(c *judge.Config) { c.Retries = 2 }, judgetest.Transport{"a": a}, "a")
		begun := time.Now()
		got, err := pool.Ask(t.Context(), question)
		if took := time.Since(begun); err != nil || got.Text != "yes" || a.Calls() != 2 || took < 3*time.Second || took > 5*time.Second {
			t.Errorf("%+v, %v after %v and %d calls", got, err, took, a.Calls())
		}

		// A time that is too long to wait for is left to the caller, and nobody asks before.
		after = "90"
		for range 50 {
			_, err := pool.Ask(t.Context(), question)
			if wait, ok := judge.RetryAfter(err); !ok || wait <= 80*time.Second || wait > 90*time.Second {
				t.Fatalf("got %v, wait %v", err, wait)
			}
		}
		if a.Calls() != 3 || pool.Stats()[0].State != "paused" {
			t.Errorf("%d calls, %+v", a.Calls(), pool.Stats()[0])
		}
		after = "0"
		time.Sleep(90 * time.Second)
		if _, err := pool.Ask(t.Context(), question); err != nil {
			t.Error(err)
		}
	})
}

// TestDeadEndpoint: a pool over one dead endpoint asks it ever more rarely, says
// so once, and recovers by itself.
func TestDeadEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := judgetest.Unconnected(t, judgetest.Fails(503, "loading"))
		pool, lines := world(t, nil, judgetest.Transport{"a": a}, "a")
		for begun := time.Now(); time.Since(begun) < 10*time.Minute; {
			_, err := pool.Ask(t.Context(), question)
			if err == nil {
				t.Fatal("an answer from a dead endpoint")
			}
			wait, _ := judge.RetryAfter(err)
			time.Sleep(wait)
		}
		if n := a.Calls(); n < 40 || n > 46 { // 5, then one each 15 seconds
			t.Errorf("%d calls in 10 minutes", n)
		}
		if n := strings.Count(lines.String(), "\n"); n != 1 || !strings.Contains(lines.String(), "loading") {
			t.Errorf("%d lines:\n%s", n, lines)
		}
		a.Answer(judgetest.Says("yes"))
		time.Sleep(15*time.Second + 1)
		if _, err := pool.Ask(t.Context(), question); err != nil || pool.Stats()[0].State != "ok" {
			t.Errorf("%v, %+v", err, pool.Stats()[0])
		}
	})
}

// TestOneProbe: while it is unknown whether an endpoint is back, one request
// finds out; the others go elsewhere, or are told to come again.
func TestOneProbe(t *testing.T) {
	for names, others := range map[string]bool{"a": false, "a b": true} {
		synctest.Test(t, func(t *testing.T) {
			slow := func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Text: "yes", Latency: time.Second} }
			hosts := judgetest.Transport{"a": judgetest.Unconnected(t, judgetest.Fails(503, "loading")), "b": judgetest.Unconnected(t, slow)}
			pool, _ := world(t, func(c *judge.Config) { c.MinInFlight = 50 }, hosts, strings.Fields(names)...)
			for pool.Stats()[0].State == "ok" {
				_, _ = pool.Ask(t.Context(), question)
			}
			hosts["a"].Answer(slow)
			time.Sleep(15*time.Second + 1)
			probes, rest := hosts["a"].Calls(), hosts["b"].Calls()
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if _, err := pool.Ask(t.Context(), question); err != nil && (others || !errors.Is(err, judge.ErrUnavailable)) {
						t.Error(err)
					}
				})
			}
			time.Sleep(time.Second / 2) // under way, all of them
			probes, rest = hosts["a"].Calls()-probes, hosts["b"].Calls()-rest
			if state := pool.Stats()[0].State; probes != 1 || state != "probing" || (rest > 0) != others {
				t.Errorf("%s: %d probes and %d other calls, %s", names, probes, rest, state)
			}
			all.Wait()
			if got := pool.Stats()[0]; got.State != "ok" {
				t.Errorf("%s: %+v", names, got)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := judgetest.Transport{"b": judgetest.Unconnected(t, judgetest.Says("yes"))} // nobody listens at a
		pool, _ := world(t, func(c *judge.Config) { c.Retries = 1 }, hosts, "a", "b")
		for range 100 {
			if got, err := pool.Ask(t.Context(), question); err != nil || got.Endpoint != "http://b/v1" {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		if got := pool.Stats()[0]; got.State != "open" || got.Calls["failed"] != 5 || pool.Stats()[1].Calls["answered"] != 100 {
			t.Errorf("%+v", pool.Stats())
		}
		hosts["a"] = judgetest.Unconnected(t, judgetest.Says("back"))
		time.Sleep(time.Minute)
		for range 100 {
			if _, err := pool.Ask(t.Context(), question); err != nil {
				t.Fatal(err)
			}
		}
		if hosts["a"].Calls() == 0 {
			t.Error("a is never asked again")
		}
	})
}

// TestSettingsFailover: an endpoint that refuses the key costs no attempt, even
// without retries.
func TestSettingsFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := judgetest.Transport{
			"a": judgetest.Unconnected(t, judgetest.Fails(http.StatusUnauthorized, "who are you")),
			"b": judgetest.Unconnected(t, judgetest.Says("yes")),
		}
		pool, _ := world(t, nil, hosts, "a", "b")
		for range 10 {
			if _, err := pool.Ask(t.Context(), question); err != nil {
				t.Fatal(err)
			}
		}
		if hosts["a"].Calls() != 1 || hosts["b"].Calls() != 10 {
			t.Errorf("%d and %d calls", hosts["a"].Calls(), hosts["b"].Calls())
		}
	})
}

// TestRotatedKey: a refused key is tried again rarely, a changed one soon.
func TestRotatedKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	writeKey(t, file, "old")
	synctest.Test(t, func(t *testing.T) {
		a := judgetest.Unconnected(t, func(c judgetest.Call) judgetest.Reply {
			if c.Header.Get("Authorization") != "Bearer new" {
				return judgetest.Reply{Status: http.StatusUnauthorized, Text: "expired"}
			}
			return judgetest.Reply{Text: "yes"}
		})
		pool, lines := world(t, func(c *judge.Config) { c.Endpoints[0].APIKeyFile = file }, judgetest.Transport{"a": a}, "a")
		for begun := time.Now(); time.Since(begun) < time.Hour; {
			_, err := pool.Ask(t.Context(), question)
			wait, ok := judge.RetryAfter(err)
			if !ok {
				t.Fatal(err)
			}
			time.Sleep(wait)
		}
		if n := a.Calls(); n < 11 || n > 13 || strings.Count(lines.String(), "\n") != 1 {
			t.Errorf("%d calls in an hour and these lines:\n%s", n, lines)
		}
		writeKey(t, file, "new")
		time.Sleep(10*time.Second + 1)
		if _, err := pool.Ask(t.Context(), question); err != nil {
			t.Errorf("10 seconds after the key changed: %v", err)
		}
	})
}

// TestMissingKeyFile: nothing is sent without the key that was asked for.
func TestMissingKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	synctest.Test(t, func(t *testing.T) {
		a := judgetest.Unconnected(t, judgetest.Says("yes"))
		pool, lines := world(t, func(c *judge.Config) { c.Endpoints[0].APIKeyFile = file }, judgetest.Transport{"a": a}, "a")
		for range 10 {
			if _, err := pool.Ask(t.Context(), question); !errors.Is(err, judge.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if a.Calls() != 0 || strings.Count(lines.String(), "\n") != 1 || !strings.Contains(lines.String(), file) {
			t.Errorf("%d calls:\n%s", a.Calls(), lines)
		}
		writeKey(t, file, "new")
		time.Sleep(10*time.Second + 1)
		if _, err := pool.Ask(t.Context(), question); err != nil {
			t.Error(err)
		}
	})
}

func TestBudgets(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*judge.Config)
		most   int // calls in the first hour
		least  int
	}{
		"requests": {func(c *judge.Config) { c.RequestsPerHour = 120 }, 120, 105},
		"tokens":   {func(c *judge.Config) { c.TokensPerHour = 12_000 }, 120, 100}, // 100 each, estimated at 270
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := judgetest.Unconnected(t, func(judgetest.Call) judgetest.Reply {
					return judgetest.Reply{Text: "yes", PromptTokens: 90, CompletionTokens: 10}
				})
				pool, lines := world(t, c.change, judgetest.Transport{"a": a}, "a")
				for begun := time.Now(); time.Since(begun) < time.Hour; {
					_, err := pool.Ask(t.Context(), question)
					wait, ok := judge.RetryAfter(err)
					if err != nil && (!ok || wait <= 0) {
						t.Fatal(err)
					}
					time.Sleep(wait)
				}
				if n := a.Calls(); n > c.most || n < c.least {
					t.Errorf("%d calls, want %d to %d", n, c.least, c.most)
				}
				if strings.Count(lines.String(), "\n") > 2 || !strings.Contains(lines.String(), name+"_per_hour") { // one an hour
					t.Errorf("lines:\n%s", lines)
				}
				if pool.Stats()[0].InFlight != 0 {
					t.Errorf("%+v", pool.Stats()[0])
				}
			})
		})
	}
}

// TestPoolFindsCapacity: two endpoints that refuse what is beyond their capacity
// are both kept busy and are seldom overloaded.
func TestPoolFindsCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := func(capacity int) *judgetest.Endpoint {
			var mu sync.Mutex
			var until []time.Time // when each call under way ends
			return judgetest.Unconnected(t, func(judgetest.Call) judgetest.Reply {
				mu.Lock()
				defer mu.Unlock()
				var left []time.Time
				for _, u := range until {
					if time.Now().Before(u) {
						left = append(left, u)
					}
				}
				if until = left; len(left) >= capacity {
					return judgetest.Reply{Status: http.StatusTooManyRequests, Text: "full"}
				}
				until = append(until, time.Now().Add(time.Second))
				return judgetest.Reply{Text: "yes", Latency: time.Second}
			})
		}
		pool, _ := world(t, func(c *judge.Config) { c.Retries = 2 }, judgetest.Transport{"a": limited(10), "b": limited(30)}, "a", "b")
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
		defer stop()
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for ctx.Err() == nil {
					_, err := pool.Ask(ctx, question)
					if wait, ok := judge.RetryAfter(err); ok {
						time.Sleep(wait)
					}
				}
			})
		}
		all.Wait()
		for i, capacity := range []float64{10, 30} {
			got := pool.Stats()[i]
			share := float64(got.Calls["answered"]) / (capacity * 300)
			turnedAway := float64(got.Calls["busy"]) / float64(got.Calls["answered"])
			t.Logf("%s: %.2f of its capacity, %.3f turned away, limit %d", got.Endpoint, share, turnedAway, got.Limit)
			if share < 0.6 || turnedAway > 0.05 || got.InFlight != 0 {
				t.Errorf("%+v", got)
			}
		}
	})
}

// TestHangingEndpoint: every wait has a bound, also that for a place.
func TestHangingEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := judgetest.Unconnected(t, func(judgetest.Call) judgetest.Reply { return judgetest.Reply{Latency: judgetest.Never} })
		pool, _ := world(t, func(c *judge.Config) { c.MaxInFlight = 2 }, judgetest.Transport{"a": a}, "a")
		begun := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := pool.Ask(t.Context(), question); err == nil {
					t.Error("an answer from a hanging endpoint")
				}
			})
		}
		all.Wait()
		if took := time.Since(begun); took > 10*time.Second { // twice the timeout
			t.Errorf("took %v", took)
		}
	})
}

// TestChaos: whatever endpoints do, every call returns, places are neither lost
// nor made, and the limit holds.
func TestChaos(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			wild := func(judgetest.Call) judgetest.Reply {
				mu.Lock()
				defer mu.Unlock()
				latency := time.Duration(rng.ExpFloat64() * float64(2*time.Second))
				switch rng.IntN(12) {
				case 0:
					return judgetest.Reply{Latency: judgetest.Never}
				case 1:
					return judgetest.Reply{Abort: true, Latency: latency}
				case 2:
					return busy([]string{"", "1", "100"}[rng.IntN(3)])
				case 3:
					return judgetest.Reply{Status: []int{400, 401, 404, 500, 503}[rng.IntN(5)], Latency: latency}
				case 4:
					return judgetest.Reply{Raw: strings.NewReader(strings.Repeat("x", rng.IntN(200_000)))}
				}
				return judgetest.Reply{Text: "yes", Latency: latency, NoUsage: rng.IntN(2) == 0}
			}
			hosts := judgetest.Transport{"a": judgetest.Unconnected(t, wild), "b": judgetest.Unconnected(t, wild)}
			pool, _ := world(t, func(c *judge.Config) { c.MaxInFlight, c.Retries, c.TokensPerHour = 12, int(seed%3), 100_000 }, hosts, "a", "b", "c")
			var all sync.WaitGroup
			answered := 0
			for i := range 40 {
				all.Go(func() {
					for range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Second)
						_, err := pool.Ask(ctx, question)
						cancel()
						if err == nil {
							mu.Lock()
							answered++
							mu.Unlock()
						}
						wait, _ := judge.RetryAfter(err)
						time.Sleep(wait)
					}
				})
			}
			all.Wait()
			for i, got := range pool.Stats() {
				if got.InFlight != 0 || got.Limit < 1 || got.Limit > 12 || i < 2 && hosts[string("ab"[i])].MostInFlight() > 12 {
					t.Errorf("seed %d: %+v", seed, got)
				}
			}
			if answered == 0 {
				t.Errorf("seed %d: no answer at all", seed)
			}
		})
	}
}
