package rewardsrv

import (
	"context"
	"sync"
	"time"
)

// slots bounds the judge calls at one time. So that no slot is empty while the
// next step is being claimed, it lets a few workers get ready ahead: as many as
// begin a call in the time that getting ready takes (Little's law). The slower
// the judge, the fewer; nobody holds a step that somebody else could label.
type slots struct {
	limit func() int // of calls

	mu           sync.Mutex
	left         *sync.Cond // a call has ended, or a context
	busy         int
	ready, calls time.Duration // running means of getting ready and of calls
}

func newSlots(limit func() int) *slots {
	s := &slots{limit: limit}
	s.left = sync.NewCond(&s.mu)
	return s
}

// most is how many steps may be taken: those at the judge, and those ahead.
func (s *slots) most() int {
	n := s.limit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls <= 0 {
		return n
	}
	return n + min(n/4, int(0.5+float64(n)*float64(s.ready)/float64(s.calls)))
}

// enter waits for a slot, after the time that getting ready took. It is false
// when ctx ended first.
func (s *slots) enter(ctx context.Context, ready time.Duration) bool {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = mean(s.ready, ready)
	for s.busy >= s.limit() && ctx.Err() == nil {
		s.left.Wait()
	}
	if ctx.Err() != nil {
		return false
	}
	s.busy++
	return true
}

// leave gives a slot back after a call that took that long, 0 for none.
func (s *slots) leave(call time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if call > 0 {
		s.calls = mean(s.calls, call)
	}
	s.busy--
	s.left.Signal()
}

// mean moves a running mean by an eighth of the way to a new value.
func mean(old, value time.Duration) time.Duration {
	if old == 0 {
		return value
	}
	return old + (value-old)/8
}
