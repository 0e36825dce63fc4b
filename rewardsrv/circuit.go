package rewardsrv

import (
	"math/rand/v2"
	"sync"
	"time"
)

// circuit pauses a judge that fails time after time, so that a dead endpoint is
// asked ever more rarely and the steps it would have been asked about wait.
type circuit struct {
	limit           int
	pause, maxPause time.Duration

	mu       sync.Mutex
	rng      *rand.Rand
	failures int // in a row
	next     time.Duration
	until    time.Time
}

// wait is how long to wait before asking; 0 means now.
func (c *circuit) wait(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.until.Sub(now))
}

// isOpen says whether the last failures opened the circuit.
func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures >= c.limit
}

// success closes the circuit; recovered is true when it was open.
func (c *circuit) success() (recovered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	recovered = c.failures >= c.limit
	c.failures, c.next, c.until = 0, 0, time.Time{}
	return recovered
}

// failure counts one. open says whether the circuit is open now, opened whether
// this failure did it. Calls that fail while a pause is running do not prolong it.
func (c *circuit) failure(now time.Time) (open, opened bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
	if c.failures < c.limit {
		return false, false
	}
	if now.Before(c.until) {
		return true, false
	}
	c.next = min(max(2*c.next, c.pause), c.maxPause)
	jitter := 0.75 + 0.25*c.rng.Float64() // servers that share an endpoint do not come back at one instant
	c.until = now.Add(time.Duration(float64(c.next) * jitter))
	return true, c.failures == c.limit
}
