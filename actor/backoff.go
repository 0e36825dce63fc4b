package actor

import "time"

// backoff is a wait that doubles each time it is taken, until it is reset.
type backoff struct {
	first, most time.Duration
	current     time.Duration // 0 before the first
}

func (b *backoff) next() time.Duration {
	wait := min(max(b.current, b.first), b.most)
	b.current = 2 * wait
	return wait
}

func (b *backoff) reset() { b.current = 0 }
