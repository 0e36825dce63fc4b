package kernel

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func TestDoCallsEveryIndexOnce(t *testing.T) {
	for _, workers := range []int{0, 1, 2, 5} {
		pool := NewPool(workers)
		for _, n := range []int{0, 1, 2, 3, 100} {
			for range 20 {
				calls := make([]atomic.Int32, n)
				running := make([]atomic.Int32, pool.Size())
				pool.Do(n, func(worker, i int) {
					if running[worker].Add(1) != 1 {
						t.Error("two calls with one worker number at once")
					}
					calls[i].Add(1)
					running[worker].Add(-1)
				})
				for i := range calls {
					if got := calls[i].Load(); got != 1 {
						t.Fatalf("%d workers, n=%d: f(%d) called %d times", workers, n, i, got)
					}
				}
			}
		}
		pool.Close()
		pool.Close()
	}
}

func TestNilPool(t *testing.T) {
	var pool *Pool
	sum := 0
	pool.Do(4, func(worker, i int) { sum += worker + i })
	if sum != 6 || pool.Size() != 1 {
		t.Errorf("sum %d, size %d", sum, pool.Size())
	}
	pool.Close()
}

func TestDoWithinDoPanics(t *testing.T) {
	pool := newTestPool(t, 1)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		pool.Do(1, func(int, int) {}) // usable again
	}()
	pool.Do(1, func(int, int) { pool.Do(1, func(int, int) {}) })
}

// Products called from within Do, and from goroutines that share a Pool or have
// none, are right: they must not share scratch.
func TestProductsAtOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const m, n, k = 130, 100, 200
	a, b := random(rng, m*k), random(rng, k*n)
	want := make([]float32, m*n)
	(*Pool)(nil).MatMul(want, n, a, k, b, n, m, n, k, false)
	pool := newTestPool(t, 3)
	product := func(p *Pool) {
		c := make([]float32, m*n)
		p.MatMul(c, n, a, k, b, n, m, n, k, false)
		if !slices.Equal(c, want) {
			t.Error("wrong product")
		}
	}
	pool.Do(20, func(int, int) { product(pool) })
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 5 {
				product(pool)
				product(nil)
			}
		})
	}
	group.Wait()
}
