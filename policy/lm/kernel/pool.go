package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is a fixed set of worker goroutines and the scratch memory of the
// matrix products. It has one owner: one goroutine at a time calls it. A matrix
// product called while the Pool is at work, as from within Do, is computed by
// the calling goroutine alone. A nil *Pool is valid and has no workers.
type Pool struct {
	size int
	busy atomic.Bool // a Do or a product is under way

	// The work under way: f is called for 0..count-1.
	f     func(worker, i int)
	count int
	next  atomic.Int64
	wake  chan struct{}  // one token per worker asked to help
	tasks sync.WaitGroup // tokens not yet dealt with
	left  atomic.Int64   // as many, to look at without waiting

	spins     bool // there is a processor for every worker
	workers   sync.WaitGroup
	closeOnce sync.Once

	// Scratch of the matrix products, which grows to the largest and stays.
	product         product
	pack            func(worker, i int) // p.product.packPanel, bound once
	compute         func(worker, i int) // p.product.computeBlock, bound once
	panels          []float32
	edges, gathered [][]float32 // see product
}

// NewPool starts n-1 workers: the caller of Do is the n-th. NewPool(1) starts
// none and runs everything inline. n below 1 counts as 1.
func NewPool(n int) *Pool {
	n = max(n, 1)
	p := &Pool{size: n, wake: make(chan struct{}, n), edges: make([][]float32, n), gathered: make([][]float32, n), spins: n <= runtime.GOMAXPROCS(0)}
	p.pack = p.product.packPanel
	p.compute = p.product.computeBlock
	for worker := 1; worker < n; worker++ {
		p.workers.Go(func() {
			for p.called() {
				p.drain(worker)
				p.left.Add(-1)
				p.tasks.Done()
			}
		})
	}
	return p
}

// spinTime is how long a goroutine looks for work, or for the others to finish,
// before it sleeps. To be woken takes some microseconds, and a network layer
// asks for the next piece of work after a few.
const spinTime = 50 * time.Microsecond

// called waits for a token and reports whether there is one: none comes after
// Close.
func (p *Pool) called() bool {
	open, taken := true, false
	p.spin(func() bool {
		select {
		case _, open = <-p.wake:
			taken = true
		default:
		}
		return taken
	})
	if !taken {
		_, open = <-p.wake
	}
	return open
}

// spin calls done until it is true or spinTime is over.
func (p *Pool) spin(done func() bool) {
	if !p.spins {
		return
	}
	for start := time.Now(); ; {
		for range 32 {
			if done() {
				return
			}
			pause()
		}
		if time.Since(start) > spinTime {
			return
		}
	}
}

// Size is the number of goroutines that work in Do, the caller included; worker
// numbers run below it. It is 1 for a nil Pool.
func (p *Pool) Size() int {
	if p == nil {
		return 1
	}
	return p.size
}

// Close ends the workers. The Pool must be idle and is not used afterwards.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.closeOnce.Do(func() { close(p.wake) })
	p.workers.Wait()
}

// Do calls f(worker, i) once for every i in 0..n-1, spread over the workers in
// no fixed order, and returns when all calls have returned. No two concurrent
// calls have the same worker number, so f may use scratch indexed by it. A panic
// of f on a worker ends the program. Do
// panics when the Pool is at work already: f must not call Do of its own Pool.
func (p *Pool) Do(n int, f func(worker, i int)) {
	if p == nil {
		for i := range n {
			f(0, i)
		}
		return
	}
	if !p.busy.CompareAndSwap(false, true) {
		panic("kernel: Do of a Pool that is at work already")
	}
	defer p.busy.Store(false)
	p.spread(n, f)
}

func (p *Pool) spread(n int, f func(worker, i int)) {
	helpers := min(p.size, n) - 1
	if helpers < 1 {
		for i := range n {
			f(0, i)
		}
		return
	}
	p.f, p.count = f, n
	p.next.Store(0)
	p.tasks.Add(helpers)
	p.left.Store(int64(helpers))
	for range helpers {
		p.wake <- struct{}{}
	}
	p.drain(0)
	// Nobody needs to wake up any more: take back what no worker has taken.
	for taken := true; taken; {
		select {
		case <-p.wake:
			p.left.Add(-1)
			p.tasks.Done()
		default:
			taken = false
		}
	}
	p.spin(func() bool { return p.left.Load() == 0 })
	p.tasks.Wait()
	p.f = nil
}

func (p *Pool) drain(worker int) {
	for {
		i := int(p.next.Add(1)) - 1
		if i >= p.count {
			return
		}
		p.f(worker, i)
	}
}

// lend gives a Pool to compute one product with: p itself, or one without
// workers where p is nil or at work.
func (p *Pool) lend() *Pool {
	if p != nil && p.busy.CompareAndSwap(false, true) {
		return p
	}
	return spares.take()
}

func (p *Pool) giveBack(lent *Pool) {
	if lent == p {
		p.busy.Store(false)
		return
	}
	lent.product = product{}
	spares.put(lent)
}

// spares keeps the scratch of products that were computed without a Pool.
var spares spareList

type spareList struct {
	mu   sync.Mutex
	free []*Pool
}

func (s *spareList) take() *Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		p := s.free[last]
		s.free = s.free[:last]
		return p
	}
	return NewPool(1)
}

func (s *spareList) put(p *Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < runtime.GOMAXPROCS(0) {
		s.free = append(s.free, p)
	}
}
