package rewardsrv

import (
	"context"
	"sync"
	"time"

	"github.com/forager-rl/forager/rewardsrv/judge"
)

// When the server stops asking for a while.
const (
	pauseAfter = 5 // failures in a row
	minPause   = time.Second
	maxPause   = time.Minute
)

// pause keeps the workers from asking a judge that cannot be asked: for as long
// as the judge says, or ever longer while calls fail one after the other.
type pause struct {
	mu       sync.Mutex
	failures int // in a row
	down     bool
	until    time.Time
}

// wait is how long not to ask; 0 means now.
func (p *pause) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.until.Sub(now))
}

// sleep waits that long and says whether ctx is still alive.
func (p *pause) sleep(ctx context.Context, now time.Time) bool { return sleep(ctx, p.wait(now)) }

// isDown says whether the judge could not be asked at last.
func (p *pause) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// succeeded ends a pause; recovered is true when there was one.
func (p *pause) succeeded() (recovered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	recovered = p.down
	p.failures, p.down, p.until = 0, false, time.Time{}
	return recovered
}

// failed counts a failure; began is true when a pause begins with it that follows
// none. Calls that fail while a pause is running do not prolong it.
func (p *pause) failed(now time.Time, err error) (began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.until) {
		return false
	}
	p.failures++
	length, unavailable := judge.RetryAfter(err)
	if !unavailable {
		if p.failures < pauseAfter {
			return false
		}
		length = minPause << min(p.failures-pauseAfter, 6)
	}
	began = !p.down
	p.down, p.until = true, now.Add(min(length, maxPause))
	return began
}
