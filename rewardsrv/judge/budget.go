package judge

import "time"

// budget is a token bucket that never gives more than its amount in any window
// of an hour. It holds a twelfth of the amount, five minutes' worth, and refills
// with the rest over an hour, so that a full bucket and an hour's refill are the
// amount. A single withdrawal that is larger than the bucket, or is corrected
// upwards afterwards, puts it into debt, which is paid before anything else.
//
// Its methods are called with the pool locked. A nil budget has no bound.
type budget struct {
	name   string
	size   float64
	rate   float64 // per second
	level  float64 // negative: debt
	last   time.Time
	logged time.Time // when it was last said that it is spent
}

// newBudget makes a full one; it is nil for an amount of 0.
func newBudget(name string, perHour int, now time.Time) *budget {
	if perHour == 0 {
		return nil
	}
	size := float64(perHour) / 12
	return &budget{name: name, size: size, level: size, rate: (float64(perHour) - size) / time.Hour.Seconds(), last: now}
}

// wait is how long until amount can be taken; 0 means now.
func (b *budget) wait(now time.Time, amount int) time.Duration {
	if b == nil {
		return 0
	}
	if now.After(b.last) {
		b.level = min(b.size, b.level+b.rate*now.Sub(b.last).Seconds())
		b.last = now
	}
	missing := min(float64(amount), b.size) - b.level
	if missing <= 1e-9 { // rounding of the refill
		return 0
	}
	return max(time.Duration(missing/b.rate*float64(time.Second)), time.Millisecond)
}

// take withdraws an amount; a negative one gives back.
func (b *budget) take(amount int) {
	if b != nil {
		b.level -= float64(amount)
	}
}

// sayOnce is true at most once an hour.
func (b *budget) sayOnce(now time.Time) bool {
	if !b.logged.IsZero() && now.Sub(b.logged) < time.Hour {
		return false
	}
	b.logged = now
	return true
}
