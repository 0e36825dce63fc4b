// Command matmul is our side of bench/matmul.py: it times the float32 matrix
// products of policy/lm/kernel that the driver names on its standard input, one
// JSON object a line, and answers each with one line. OpenBLAS's side,
// openblas.py, speaks the same protocol.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// request names one product: C = A·B, A·Bᵀ or Aᵀ·B, where C is m×n and k is the
// inner dimension.
type request struct {
	Case    string  `json:"case"` // "MatMul", "MatMulTransB" or "MatMulTransA"
	M       int     `json:"m"`
	N       int     `json:"n"`
	K       int     `json:"k"`
	Seconds float64 `json:"seconds"` // to repeat it for
}

// result is the speed of a product.
type result struct {
	GFLOPs float64 `json:"gflops"` // 10⁹ multiplications and additions a second
}

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "matmul:", err)
		os.Exit(1)
	}
}

func serve(in io.Reader, out io.Writer) error {
	pool := kernel.NewPool(runtime.GOMAXPROCS(0))
	defer pool.Close()
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		if err := requests.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		res, err := measure(pool, req)
		if err != nil {
			return err
		}
		if err := answers.Encode(res); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
}

func measure(pool *kernel.Pool, req request) (result, error) {
	m, n, k := req.M, req.N, req.K
	rng := rand.New(rand.NewPCG(1, 2))
	a, b, c := fill(rng, m*k), fill(rng, n*k), make([]float32, m*n)
	var run func()
	switch req.Case {
	case "MatMul":
		run = func() { pool.MatMul(c, n, a, k, b, n, m, n, k, false) }
	case "MatMulTransB":
		run = func() { pool.MatMulTransB(c, n, a, k, b, k, m, n, k, false) }
	case "MatMulTransA":
		run = func() { pool.MatMulTransA(c, n, a, m, b, n, m, n, k, false) }
	default:
		return result{}, fmt.Errorf("unknown case %q", req.Case)
	}
	run() // grows the scratch
	count := 0
	start := time.Now()
	for time.Since(start).Seconds() < req.Seconds {
		run()
		count++
	}
	seconds := time.Since(start).Seconds()
	return result{2 * float64(m) * float64(n) * float64(k) * float64(count) / seconds / 1e9}, nil
}

func fill(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = rng.Float32() - 0.5
	}
	return x
}
