package judge

import "time"

// limit is the number of calls that an endpoint may have in flight, found by
// additive increase and multiplicative decrease, which is the rule that settles
// on fair and full use when several clients share a server without talking to
// each other (Chiu and Jain, Analysis of the Increase and Decrease Algorithms
// for Congestion Avoidance in Computer Networks, 1989). The details are those of
// TCP (RFC 5681), with a call in the place of a segment: slow start up to the
// size at which overload was last seen, then one more a round trip; half on
// overload, once a round trip; no growth while the limit is not being used (RFC
// 7661). Two averages of the latency, a short and a long one, tell a blow-up, as
// in Netflix's concurrency-limits.
//
// Its methods are called with the pool locked.
type limit struct {
	least, most float64
	size        float64
	ceiling     float64   // slow start ends here
	cut         time.Time // when it was halved last

	answers     int
	short, long float64 // latency in seconds, averaged over about 8 and 128 answers
}

const (
	firstSize  = 8   // like TCP's first window of ten segments (RFC 6928)
	blowUp     = 3   // the short average is this many times the long one
	noticeable = 0.1 // seconds; smaller differences are noise of scheduling
	warmUp     = 32  // answers before latency is judged
)

func newLimit(least, most int) *limit {
	l := &limit{least: float64(least), most: float64(most)}
	l.size = min(max(firstSize, l.least), l.most)
	l.ceiling = l.most
	return l
}

// places is the limit as a whole number, at least 1.
func (l *limit) places() int { return int(l.size) }

// answered counts an answer to a call that was sent at sent and took took, while
// inFlight calls were under way, this one included. It reports whether latency
// blew up.
func (l *limit) answered(sent, now time.Time, took time.Duration, inFlight int) bool {
	seconds := took.Seconds()
	l.answers++
	l.short += (seconds - l.short) * max(1./8, 1/float64(l.answers))
	l.long += (seconds - l.long) * max(1./128, 1/float64(l.answers))
	if l.answers > warmUp && l.short > blowUp*l.long && l.short-l.long > noticeable {
		return l.overloaded(sent, now)
	}
	if float64(2*inFlight) >= l.size {
		if l.size < l.ceiling {
			l.size++ // each answer: doubles in a round trip
		} else {
			l.size += 1 / l.size
		}
		l.size = min(l.size, l.most)
	}
	return false
}

// overloaded halves the limit, unless the call was sent before it was halved
// last: that one still tells of the same overload. It reports whether it did.
func (l *limit) overloaded(sent, now time.Time) bool {
	if !sent.After(l.cut) {
		return false
	}
	l.size = max(l.size/2, l.least)
	l.ceiling = l.size
	l.cut = now
	return true
}
