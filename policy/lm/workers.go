package lm

import (
	"runtime"

	"github.com/forager-rl/forager/policy/lm/kernel"
)

// workers are the threads of one trainer or engine: a pool for products that
// are split over all of them, and for each thread a pool of its own for small
// products inside a parallel loop.
type workers struct {
	pool   *kernel.Pool
	inline []*kernel.Pool
}

func newWorkers(threads int) *workers {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	w := &workers{pool: kernel.NewPool(threads), inline: make([]*kernel.Pool, threads)}
	for i := range w.inline {
		w.inline[i] = kernel.NewPool(1)
	}
	return w
}

func (w *workers) close() {
	w.pool.Close()
	for _, p := range w.inline {
		p.Close()
	}
}

// each runs f for i in [0, n) over the threads. f gets the pool for its own
// small products and its thread's index.
func (w *workers) each(n int, f func(own *kernel.Pool, thread, i int)) {
	w.pool.Do(n, func(thread, i int) { f(w.inline[thread], thread, i) })
}

// rowBlock is the number of rows in a block. It is fixed, so that sums made per
// block do not depend on the number of threads.
const rowBlock = 128

// blocks is the number of blocks that n rows make.
func blocks(n int) int { return (n + rowBlock - 1) / rowBlock }

// rowBlocks runs f for every block of n rows.
func (w *workers) rowBlocks(n int, f func(thread, block, from, to int)) {
	w.pool.Do(blocks(n), func(thread, i int) { f(thread, i, i*rowBlock, min(n, (i+1)*rowBlock)) })
}

// rows is rowBlocks for work that needs neither thread nor block.
func (w *workers) rows(n int, f func(from, to int)) {
	w.rowBlocks(n, func(_, _, from, to int) { f(from, to) })
}
