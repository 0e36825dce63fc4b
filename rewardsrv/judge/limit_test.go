package judge

import (
	"math"
	"testing"
	"time"
)

// TestLimitFindsWhatAnEndpointBears: against an endpoint that answers 429 to
// whatever is beyond its capacity, the limit oscillates between about half the
// capacity and just above it.
func TestLimitFindsWhatAnEndpointBears(t *testing.T) {
	const capacity = 20
	l := newLimit(1, 256)
	now := time.Unix(0, 0)
	low, high, answered, rounds := 1000, 0, 0, 200
	for round := range rounds {
		sent := now
		now = now.Add(time.Second)
		n := l.places()
		for i := range n {
			if i < capacity {
				l.answered(sent, now, time.Second, n)
				answered++
			} else {
				l.overloaded(sent, now)
			}
		}
		if round > 20 {
			low, high = min(low, n), max(high, n)
		}
	}
	if low < capacity/2-1 || high > capacity+2 {
		t.Errorf("between %d and %d, capacity is %d", low, high, capacity)
	}
	if share := float64(answered) / float64(rounds*capacity); share < 0.7 {
		t.Errorf("uses %.2f of the capacity, want the three quarters of a sawtooth", share)
	}
}

func TestLimitGrowth(t *testing.T) {
	round := func(l *limit, at int, used int) {
		for range used {
			l.answered(time.Unix(int64(at), 0), time.Unix(int64(at)+1, 0), time.Second, used)
		}
	}
	l := newLimit(1, 64)
	for i, want := range []int{8, 16, 32, 64, 64} { // slow start
		if l.places() != want {
			t.Fatalf("round %d: %d places, want %d", i, l.places(), want)
		}
		round(l, i, l.places())
	}
	for i := range 64 { // one overload, however many calls tell of it
		if cut := l.overloaded(time.Unix(5, 0), time.Unix(6, 0)); cut != (i == 0) {
			t.Fatalf("call %d cuts: %v", i, cut)
		}
	}
	if l.places() != 32 {
		t.Errorf("%d places after an overload, want 32", l.places())
	}
	for i, want := range []float64{32, 33, 34} { // one a round trip
		if math.Abs(l.size-want) > 0.1 {
			t.Fatalf("round %d after it: size %v, want about %v", i, l.size, want)
		}
		round(l, 7+i, l.places())
	}
	before := l.size
	round(l, 20, 3) // not used: says nothing
	if l.size != before {
		t.Errorf("grew from %v to %v on 3 calls", before, l.size)
	}
	for i := range 20 {
		l.overloaded(time.Unix(int64(30+i), 0), time.Unix(int64(30+i), 1))
	}
	if l.places() != 1 {
		t.Errorf("%d places, want the least", l.places())
	}
}

// TestLimitLatency: a sudden slowdown halves the limit, slow drift and small
// noise do not.
func TestLimitLatency(t *testing.T) {
	cuts := func(latency func(i int) time.Duration) int {
		l := newLimit(1, 64)
		now := time.Unix(0, 0)
		n := 0
		for i := range 2000 {
			sent := now
			now = now.Add(latency(i))
			if l.answered(sent, now, latency(i), 1) {
				n++
			}
		}
		return n
	}
	step := func(from, to time.Duration) func(int) time.Duration {
		return func(i int) time.Duration {
			if i < 1000 {
				return from
			}
			return to
		}
	}
	if n := cuts(step(time.Second, 8*time.Second)); n == 0 {
		t.Error("8 times the latency is not noticed")
	}
	if n := cuts(step(time.Second, 2*time.Second)); n != 0 {
		t.Errorf("twice the latency: %d cuts", n)
	}
	if n := cuts(step(time.Millisecond, 50*time.Millisecond)); n != 0 {
		t.Errorf("noise of scheduling: %d cuts", n)
	}
	if n := cuts(func(i int) time.Duration { return time.Second + time.Duration(i)*10*time.Millisecond }); n != 0 {
		t.Errorf("slow drift: %d cuts", n)
	}
}
