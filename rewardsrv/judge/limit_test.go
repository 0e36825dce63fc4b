package judge

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// server is a model of an endpoint in simulated time: answers a second grow with
// the calls in flight up to its slots; what is beyond waits in its queue, or is
// refused.
type server struct {
	slots   int
	seconds func(inFlight int, r *rand.Rand) float64 // to serve one call
	refuses bool
}

type event struct {
	at, sent float64
	refused  bool
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// serve keeps the server as busy as the limit allows for some seconds, and gives
// answers a second and the mean of calls in flight over the second half.
func serve(s server, l *limit, seconds float64) (rate, inFlight float64) {
	r := rand.New(rand.NewPCG(3, 5))
	stamp := func(t float64) time.Time { return time.Unix(0, 0).Add(time.Duration(t * float64(time.Second))) }
	free := make([]float64, s.slots) // when each slot is free
	var under events
	now, answers, load, samples := 0.001, 0, 0, 0
	for now < seconds {
		for len(under) < l.places() {
			slot := 0
			for i := range free {
				if free[i] < free[slot] {
					slot = i
				}
			}
			if s.refuses && free[slot] > now {
				heap.Push(&under, event{at: now + 0.01, sent: now, refused: true})
				continue
			}
			free[slot] = max(free[slot], now) + s.seconds(len(under)+1, r)
			heap.Push(&under, event{at: free[slot], sent: now})
		}
		n := len(under)
		e := heap.Pop(&under).(event)
		now = e.at
		if e.refused {
			l.overloaded(stamp(e.sent), stamp(now))
			now += 0.05 // the pause that the pool makes
			continue
		}
		l.answered(stamp(e.sent), stamp(now), time.Duration((now-e.sent)*float64(time.Second)), n)
		if now > seconds/2 {
			answers, load, samples = answers+1, load+n, samples+1
		}
	}
	return float64(answers) / (seconds / 2), float64(load) / float64(samples)
}

// TestLimitFindsTheKnee: whatever the kind of server, most of its capacity is
// used and little waits in its queue. Against one that refuses there is a
// sawtooth.
func TestLimitFindsTheKnee(t *testing.T) {
	varied := func(mean float64) func(int, *rand.Rand) float64 { // answers of different lengths
		return func(_ int, r *rand.Rand) float64 { return mean * (0.3 + 1.4*r.Float64()) }
	}
	for name, c := range map[string]struct {
		server
		best float64 // answers a second at full load
		most float64 // mean calls in flight
	}{
		"one slot, queues":     {server{slots: 1, seconds: varied(1)}, 1, 4},
		"4 slots, queues":      {server{slots: 4, seconds: varied(1)}, 4, 10},
		"20 slots, queues":     {server{slots: 20, seconds: varied(1)}, 20, 45},
		"20 slots, refuses":    {server{slots: 20, seconds: varied(1), refuses: true}, 20, 22},
		"slow, one slot":       {server{slots: 1, seconds: varied(8)}, 1. / 8, 4},
		"more slots than most": {server{slots: 200, seconds: varied(1)}, 64, 64},
		"batches": {server{slots: 200, seconds: func(n int, r *rand.Rand) float64 { // gains less and less: a decode step grows with the batch
			return (1 + float64(n)/64) * (0.5 + r.Float64())
		}}, 32, 64},
	} {
		t.Run(name, func(t *testing.T) {
			rate, inFlight := serve(c.server, newLimit(1, 64), 4000)
			t.Logf("%.2f of the capacity with %.1f calls in flight", rate/c.best, inFlight)
			if rate < 0.75*c.best || inFlight > c.most {
				t.Errorf("%.2f answers a second of %.2f with %.1f calls in flight, want at most %.0f", rate, c.best, inFlight, c.most)
			}
		})
	}
}

// TestLimitStarts: a fast endpoint gets all places within seconds.
func TestLimitStarts(t *testing.T) {
	l := newLimit(1, 64)
	serve(server{slots: 1000, seconds: func(int, *rand.Rand) float64 { return 0.05 }}, l, 2)
	if l.places() != 64 {
		t.Errorf("%d places after 2 seconds", l.places())
	}
}

func TestLimitOverload(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	l := newLimit(2, 64)
	l.start(64, at(0))
	for i := range 64 { // one overload, however many calls tell of it
		if cut := l.overloaded(at(5), at(6)); cut != (i == 0) {
			t.Fatalf("call %d cuts: %v", i, cut)
		}
	}
	if l.places() != 44 {
		t.Errorf("%d places after an overload, want 44", l.places())
	}
	for range 40 { // not used: says nothing
		l.answered(at(7), at(8), time.Second, 3)
	}
	if l.places() != 44 || l.n != 0 {
		t.Errorf("%+v after calls that did not use it", l)
	}
	for range 45 { // a measurement, then one more a round trip
		l.answered(at(8), at(9), time.Second, 44)
	}
	for range 45 {
		l.answered(at(10), at(11), time.Second, 44)
	}
	if l.places() != 45 {
		t.Errorf("%d places a round trip later, want 45", l.places())
	}
	for i := range 20 {
		l.overloaded(at(20+i), at(20+i).Add(1))
	}
	if l.places() != 2 {
		t.Errorf("%d places, want the least", l.places())
	}
}

// TestLimitBlowUp: a sudden slowdown makes the limit smaller, slow drift and small noise
// do not.
func TestLimitBlowUp(t *testing.T) {
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
