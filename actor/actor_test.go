package actor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

// desk is everything around an actor. It notes the order of events.
type desk struct {
	mu      sync.Mutex
	credits []forager.Credit
	events  []string
	putErrs []error // returned by Put, one after another
	slow    time.Duration
	source  Credits         // of credits; nil: the desk itself
	delays  []time.Duration // of credits that were returned
	played  PlayedVersion
}

func (d *desk) note(event string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, event)
}

func (d *desk) Next(ctx context.Context, wait time.Duration) (Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.credits) == 0 {
		d.mu.Unlock()
		pause(ctx, wait)
		d.mu.Lock()
		return nil, nil
	}
	c := d.credits[0]
	d.credits = d.credits[1:]
	return lease{d, c}, nil
}

type lease struct {
	desk   *desk
	credit forager.Credit
}

func (l lease) Credit() forager.Credit { return l.credit }
func (l lease) KeepAlive() error       { l.desk.note("alive"); return nil }
func (l lease) Done() error            { l.desk.note("done"); return nil }
func (l lease) Return(pause time.Duration) error {
	l.desk.note("returned")
	l.desk.delays = append(l.desk.delays, pause)
	return nil
}

func (d *desk) Put(context.Context, forager.Group) error {
	d.mu.Lock()
	var err error
	if len(d.putErrs) > 0 {
		err, d.putErrs = d.putErrs[0], d.putErrs[1:]
	}
	d.mu.Unlock()
	if err != nil {
		d.note("full")
		return err
	}
	d.note("put")
	return nil
}

func (d *desk) Offer(context.Context, []forager.TurnDigest) error { return errors.New("dropped") }

func (d *desk) Task(id string) (forager.Task, error) {
	if id != capital.ID {
		return forager.Task{}, forager.ErrNotFound
	}
	return capital, nil
}

// Generate answers at once, or after a while.
func (d *desk) Generate(ctx context.Context, _ policy.Request) (policy.Completion, error) {
	if d.slow > 0 && !pause(ctx, d.slow) {
		return policy.Completion{}, ctx.Err()
	}
	ids := runes{}.Encode("<answer> Y </answer>")
	return policy.Completion{Tokens: ids, Logprobs: make([]float32, len(ids)), Versions: []forager.VersionSpan{{Span: forager.Span{End: int32(len(ids))}}}}, nil
}

func (d *desk) Release(uint64) {}

// employ runs an actor over the desk's credits for a while of the bubble's time.
func employ(t *testing.T, d *desk, work time.Duration) []string {
	t.Helper()
	player, err := NewPlayer(DefaultEpisodeConfig(), PlayerDeps{Run: "r", Actor: "a", Generator: d, Tokenizer: runes{}, Retriever: &library{}, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Groups = 1
	var credits Credits = d
	if d.source != nil {
		credits = d.source
	}
	a, err := New(cfg, Deps{Player: player, Played: &d.played, Credits: credits, Sink: d, Digests: d, Tasks: d, Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), work)
	defer cancel()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("events are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("events are %v, want %v", got, want)
		}
	}
}

func credit(task string) forager.Credit {
	return forager.Credit{Run: "r", TaskID: task, GroupSize: 2}
}

func TestCreditIsDoneOnlyWhenTheGroupIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{credit("t1")}, putErrs: []error{forager.ErrFull, forager.ErrFull}}
		expect(t, employ(t, d, time.Minute), "full", "full", "put", "done")
	})
}

func TestFailedCreditIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{credit("unknown"), credit("t1")}, putErrs: []error{errors.New("broken")}}
		expect(t, employ(t, d, time.Minute), "returned", "full", "returned")
	})
}

func TestLongGroupShowsSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{credit("t1")}, slow: 25 * time.Second}
		expect(t, employ(t, d, time.Minute), "alive", "alive", "put", "done")
	})
}

func TestDrainFinishesWhatIsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick := &desk{credits: []forager.Credit{credit("t1"), credit("t1")}, slow: 9 * time.Second}
		expect(t, employ(t, quick, time.Second), "put", "done") // 10 s to drain, and no second credit
		late := &desk{credits: []forager.Credit{credit("t1")}, slow: 8 * time.Minute}
		got := employ(t, late, time.Second)
		expect(t, got, "alive", "returned")
		if late.delays[0] != 0 { // nothing is wrong with the credit
			t.Errorf("it may be played after %v", late.delays[0])
		}
	})
}

func TestCreditWaitsForItsPolicyVersion(t *testing.T) {
	newer := credit("t1")
	newer.Version = 3
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{newer}}
		go func() {
			for version := range forager.Version(4) {
				pause(t.Context(), 4*time.Second)
				d.note("weights")
				d.played.Reach(version)
			}
		}()
		expect(t, employ(t, d, time.Minute), "weights", "weights", "alive", "weights", "weights", "put", "done")
	})
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{newer}}
		got := employ(t, d, DefaultConfig().WeightsWait+time.Second)
		if got[len(got)-1] != "returned" || d.delays[0] == 0 {
			t.Errorf("weights do not come: events are %v, the credit may be played after %v", got, d.delays)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := &desk{credits: []forager.Credit{newer}}
		expect(t, employ(t, d, time.Second), "returned") // a stopping actor does not wait
		if d.delays[0] != 0 {
			t.Errorf("a stopping actor's credit may be played after %v", d.delays[0])
		}
	})
}
