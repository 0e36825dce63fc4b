package judge

import "time"

// limit is the number of calls that an endpoint may have in flight, found by
// additive increase and multiplicative decrease: the rule that settles on fair
// and full use when several clients share a server without talking to each other
// (Chiu and Jain, Analysis of the Increase and Decrease Algorithms for Congestion
// Avoidance in Computer Networks, 1989). The details are those of TCP (RFC 5681),
// with a call in the place of a segment: doubling up to the size at which it was
// last too much, from there one more a round trip; smaller on overload, once a
// round trip, by the factor 0.7 of RFC 9438; no growth while the limit is not
// being used (RFC 7661).
//
// Overload is what the endpoint says (429, 5xx) or a timeout, but most model
// servers say nothing: they queue what they cannot serve, where it grows old. So
// latency counts too, in two ways. Growth must pay: when the limit has doubled,
// at least a fifth more answers a second must come, or else it goes back (a climb
// like that of Hellerstein, Morrison and Eilebrecht, Optimizing Concurrency
// Levels in the .NET ThreadPool, 2010). And a sudden blow-up, seen by a short
// and a long average, is overload.
//
// Its methods are called with the pool locked.
type limit struct {
	least, most float64
	size        float64
	ceiling     float64   // doubling ends here
	cut         time.Time // when it was made smaller last

	// Growth from base, where answers took before on average, to goal.
	base, goal float64
	before     float64 // seconds; 0: not measured yet
	proven     bool    // growth to base has paid
	since      time.Time
	sum        float64 // seconds, of n answers to calls sent since then
	n          int

	answers     int
	short, long float64 // latency in seconds, averaged over about 8 and 128 answers
}

const (
	firstSize  = 4
	decrease   = 0.7 // on overload
	worthwhile = 0.2 // of the growth in size, as growth in answers a second
	fewest     = 16  // answers that make a measurement
	blowUp     = 3   // the short average is this many times the long one
	warmUp     = 32  // answers before a blow-up is believed
	noticeable = 0.1 // seconds; smaller differences are noise of scheduling
)

func newLimit(least, most int) *limit {
	l := &limit{least: float64(least), most: float64(most)}
	l.ceiling = l.most
	l.start(min(max(firstSize, l.least), l.most), time.Time{})
	return l
}

// places is the limit as a whole number, at least 1.
func (l *limit) places() int { return int(l.size) }

// answered counts an answer to a call that was sent at sent and took took, while
// inFlight calls were under way, this one included. It reports whether latency
// told of an overload.
func (l *limit) answered(sent, now time.Time, took time.Duration, inFlight int) bool {
	seconds := took.Seconds()
	l.answers++
	l.short += (seconds - l.short) * max(1./8, 1/float64(l.answers))
	l.long += (seconds - l.long) * max(1./128, 1/float64(l.answers))
	if l.answers > warmUp && l.short > blowUp*l.long && l.short-l.long > noticeable {
		return l.overloaded(sent, now)
	}
	if float64(2*inFlight) < l.size {
		return false
	}
	if l.before > 0 && l.size < l.goal {
		l.size = min(l.size+1/l.size, l.goal)
		if l.size == l.goal {
			l.measure(now)
		}
		return false
	}
	if sent.Before(l.since) {
		return false
	}
	l.sum += seconds
	l.n++
	if l.n < fewest || float64(l.n) < l.size {
		return false
	}
	return l.judge(l.sum/float64(l.n), now)
}

// judge compares the latency at the present size with that at the size before.
func (l *limit) judge(latency float64, now time.Time) bool {
	grown := l.size / l.base
	gain := grown * l.before / latency
	if l.before > 0 && gain < 1+worthwhile*(grown-1) && latency-l.before > noticeable {
		back := l.base
		if !l.proven { // then it may be too much already
			back /= 2
		}
		l.shrink(back, now)
		return true
	}
	l.proven = l.before > 0
	l.base, l.before = l.size, latency
	l.goal = min(2*l.size, l.most)
	if l.size < l.ceiling {
		l.size = min(l.goal, l.ceiling)
	}
	l.measure(now)
	return false
}

// measure begins a measurement.
func (l *limit) measure(now time.Time) { l.since, l.sum, l.n = now, 0, 0 }

// start sets the size anew; nothing is known about it.
func (l *limit) start(size float64, now time.Time) {
	l.size, l.base, l.goal = size, size, size
	l.before, l.proven = 0, false
	l.measure(now)
}

func (l *limit) shrink(size float64, now time.Time) {
	l.start(max(size, l.least), now)
	l.ceiling, l.cut = l.size, now
}

// overloaded makes the limit smaller, unless the call was sent before that was
// done last: then it still tells of the same overload. It reports whether it did.
func (l *limit) overloaded(sent, now time.Time) bool {
	if !sent.After(l.cut) {
		return false
	}
	l.shrink(decrease*l.size, now)
	return true
}
