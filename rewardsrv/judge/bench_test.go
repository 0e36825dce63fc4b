package judge_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

// BenchmarkPool is 64 callers of an endpoint that takes 50 ms, over real
// connections: 1,280 requests a second at best. share is the part of it that is
// reached once the limit has grown. "plain" is the same with net/http alone, which
// is what the machine allows.
func BenchmarkPool(b *testing.B) {
	const callers, latency = 64, 50 * time.Millisecond
	e := judgetest.New(b, func(judgetest.Call) judgetest.Reply {
		return judgetest.Reply{Text: "helpful\nLABEL: AMBER", Latency: latency}
	})
	measure := func(b *testing.B, ask func() error) {
		run := func(n int) {
			var left atomic.Int64
			left.Store(int64(n))
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						if err := ask(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		}
		run(512) // connect, and let the limit grow
		b.ResetTimer()
		run(b.N)
		rate := float64(b.N) / b.Elapsed().Seconds()
		b.ReportMetric(rate, "requests/s")
		b.ReportMetric(rate/(callers/latency.Seconds()), "share")
	}
	b.Run("pool", func(b *testing.B) {
		pool, _ := newPool(b, func(c *judge.Config, _ *judge.Deps) { c.MaxInFlight = callers }, e.BaseURL())
		measure(b, func() error {
			_, err := pool.Ask(b.Context(), question)
			return err
		})
		b.ReportMetric(float64(pool.Stats()[0].Limit), "limit")
	})
	b.Run("plain", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
		measure(b, func() error {
			response, err := client.Post(e.BaseURL()+"/chat/completions", "application/json",
				strings.NewReader(`{"model":"m","messages":[{"role":"system","content":"You judge."},{"role":"user","content":"Is it helpful?"}]}`))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			return err
		})
	})
}

// BenchmarkPoolOverhead is what the pool and the client cost for one request, with
// no network and no latency.
func BenchmarkPoolOverhead(b *testing.B) {
	pool, _ := newPool(b, func(_ *judge.Config, d *judge.Deps) {
		d.Transport = judgetest.Transport{"a": judgetest.Unconnected(b, judgetest.Says("LABEL: AMBER"))}
	}, "http://a/v1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pool.Ask(b.Context(), question); err != nil {
			b.Fatal(err)
		}
	}
}
