package judge

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestBudgetHoldsInEveryHour: however requests come, no window of an hour sees
// more than the amount, and a steady demand gets nearly all of it.
func TestBudgetHoldsInEveryHour(t *testing.T) {
	const perHour = 120
	for name, gap := range map[string]func(*rand.Rand) time.Duration{
		"steady": func(*rand.Rand) time.Duration { return time.Second },
		"random": func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(30*time.Second)) },
		"bursts": func(r *rand.Rand) time.Duration {
			if r.IntN(100) == 0 {
				return 40 * time.Minute
			}
			return time.Millisecond
		},
	} {
		r := rand.New(rand.NewPCG(7, 8))
		start := time.Unix(0, 0)
		now := start
		b := newBudget("requests_per_hour", perHour, now)
		var taken []time.Time
		for now.Sub(start) < 12*time.Hour {
			now = now.Add(gap(r))
			if b.wait(now, 1) == 0 {
				b.take(1)
				taken = append(taken, now)
			}
		}
		oldest := 0
		for i, at := range taken {
			for at.Sub(taken[oldest]) >= time.Hour {
				oldest++
			}
			if n := i - oldest + 1; n > perHour {
				t.Fatalf("%s: %d in the hour before %v", name, n, at)
			}
		}
		if name == "steady" && len(taken) < 12*perHour*9/10 {
			t.Errorf("a steady demand got %d in 12 hours of %d", len(taken), perHour)
		}
	}
}

func TestBudgetDebt(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBudget("tokens_per_hour", 1200, now) // holds 100, refills 1100 an hour
	if b.wait(now, 5000) != 0 {
		t.Fatal("a full bucket does not let a large call through")
	}
	b.take(5000)
	b.take(300 - 5000) // it cost 300
	wait := b.wait(now, 50)
	if want := 250 * time.Hour / 1100; wait < want-time.Second || wait > want+time.Second {
		t.Errorf("wait %v, want %v", wait, want)
	}
	if b.wait(now.Add(wait+time.Millisecond), 50) != 0 {
		t.Error("not there after the wait")
	}
	b.take(50)
	if b.wait(now, 50) == 0 || b.wait(now.Add(wait+time.Second), 50) == 0 {
		t.Error("a clock that goes back and forth gives credit")
	}
	if !b.sayOnce(now) || b.sayOnce(now.Add(time.Minute)) || !b.sayOnce(now.Add(2*time.Hour)) {
		t.Error("not said once an hour")
	}
	var none *budget
	none.take(5)
	if none.wait(now, 5) != 0 {
		t.Error("no budget bounds")
	}
}
