package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every service meets every fault before one comes again, and the seed alone gives
// the order.
func TestPlan(t *testing.T) {
	draw := func(seed uint64) (list []pair, holds []time.Duration) {
		p := plan{random: rand.New(rand.NewPCG(seed, 0))}
		for range 2 * (len(services) + 1) * len(kinds) {
			list = append(list, p.next())
			holds = append(holds, p.between(time.Second, 2*time.Second))
		}
		return list, holds
	}
	list, holds := draw(7)
	for half := range slices.Chunk(list, len(list)/2) {
		seen := map[pair]bool{}
		for _, drawn := range half {
			seen[drawn] = true
		}
		if len(seen) != len(half) {
			t.Errorf("%d pairs were drawn, %d different ones", len(half), len(seen))
		}
	}
	for _, hold := range holds {
		if hold < time.Second || hold >= 2*time.Second {
			t.Errorf("a fault holds for %v", hold)
		}
	}
	if again, _ := draw(7); !slices.Equal(list, again) {
		t.Error("one seed gives two orders")
	}
	if other, _ := draw(8); slices.Equal(list, other) {
		t.Error("two seeds give one order")
	}
}

func TestFinished(t *testing.T) {
	for name, c := range map[string]struct {
		list []container
		want bool
	}{
		"both ended":        {[]container{{Service: "learner-1", Ended: true}, {Service: "learner-2", Ended: true}}, true},
		"one learns":        {[]container{{Service: "learner-1", Ended: true}, {Service: "learner-2", Running: true}}, false},
		"one was killed":    {[]container{{Service: "learner-1"}, {Service: "learner-2", Ended: true}}, false},
		"nobody is known":   {nil, false},
		"others do not end": {[]container{{Service: "actor", Ended: true}}, false},
	} {
		if got := finished(c.list); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestKillNeedsAProcess(t *testing.T) {
	for _, pid := range []int{0, 1, -1} {
		if err := kill(t.Context(), composition{}, container{PID: pid}, 0); err == nil {
			t.Errorf("process %d was killed", pid)
		}
	}
}
