package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// products times float32 matrix products, again and again until the requested
// time is over.
type products struct{ pool *kernel.Pool }

func newProducts(args []string) (*products, error) {
	flags := flag.NewFlagSet("products", flag.ContinueOnError)
	threads := flags.Int("threads", 2, "cores to use")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	return &products{kernel.NewPool(*threads)}, nil
}

func (p *products) close() error {
	p.pool.Close()
	return nil
}

func (p *products) run(req request) (result, error) {
	m, n, k := req.M, req.N, req.K
	random := rand.New(rand.NewPCG(req.Seed, 3))
	a, b, c := matrix(random, m*k), matrix(random, n*k), make([]float32, m*n)
	var multiply func()
	switch req.Case {
	case "MatMul": // C = A·B
		multiply = func() { p.pool.MatMul(c, n, a, k, b, n, m, n, k, false) }
	case "MatMulTransB": // C = A·Bᵀ
		multiply = func() { p.pool.MatMulTransB(c, n, a, k, b, k, m, n, k, false) }
	case "MatMulTransA": // C = Aᵀ·B
		multiply = func() { p.pool.MatMulTransA(c, n, a, m, b, n, m, n, k, false) }
	default:
		return result{}, errors.New("unknown case")
	}
	multiply() // grows the scratch
	count := 0
	start := time.Now()
	for time.Since(start).Seconds() < req.Seconds {
		multiply()
		count++
	}
	seconds := time.Since(start).Seconds()
	return result{GFLOPs: 2e-9 * float64(m) * float64(n) * float64(k) * float64(count) / seconds}, nil
}

func matrix(random *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = random.Float32() - 0.5
	}
	return x
}
