package learner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
)

func testConfig() Config {
	c := DefaultConfig()
	c.Steps, c.GroupsPerStep, c.GroupSize, c.MaxGroupsPerStep = 10, 4, 8, 16
	c.LearningRate, c.WarmupSteps, c.MicroBatchTokens = 3, 0, 20
	return c
}

// run trains in the world until the end and checks what must hold after any run.
func run(t *testing.T, w *world, config Config) *Learner {
	t.Helper()
	l, err := w.learner(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.Finished() {
		t.Error("the run is not finished")
	}
	if err := l.state.Budget.Validate(); err != nil {
		t.Error(err)
	}
	for index, times := range w.learnt {
		if times != 1 {
			t.Errorf("group %d was consumed %d times", index, times)
		}
	}
	return l
}

func rewardOf(steps []StepMetrics) (mean float64) {
	for _, m := range steps {
		mean += m.Reward / float64(len(steps))
	}
	return mean
}

func TestRewardRises(t *testing.T) {
	w, config := newWorld(), testConfig()
	config.Steps = 60
	run(t, w, config)
	first, last := rewardOf(w.steps[:5]), rewardOf(w.steps[55:])
	if first > 0.4 || last < 0.85 {
		t.Fatalf("reward went from %.2f to %.2f", first, last)
	}
	if _, err := json.Marshal(w.steps); err != nil {
		t.Fatal(err)
	}
}

func TestShuffledRewardsTeachNothing(t *testing.T) {
	w, config := newWorld(), testConfig()
	config.Steps, config.ShuffleRewards, config.LearningRate = 60, true, 0.3
	run(t, w, config)
	if last := rewardOf(w.steps[50:]); last > 0.4 {
		t.Fatalf("reward rose to %.2f with shuffled rewards", last)
	}
}

// Invariant 5: a learner killed at any call to the outside, then resumed, ends
// with the same weights, account and version as one that was never killed, and
// has reported every step.
func TestResumeAfterACrashAtAnyCallIsExact(t *testing.T) {
	for _, mini := range []int{1, 3} {
		t.Run(fmt.Sprintf("mini_batches=%d", mini), func(t *testing.T) {
			config := testConfig()
			config.Steps, config.MiniBatches = 5, mini
			whole := newWorld()
			whole.fail = func(i uint64) bool { return i%5 == 2 }
			whole.stale = func(i uint64) bool { return i%7 == 3 }
			run(t, whole, config)

			for kill := 1; kill <= whole.calls; kill++ {
				w := newWorld()
				w.fail, w.stale, w.killAt = whole.fail, whole.stale, kill
				l, err := w.learner(config)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Run(t.Context()); !errors.Is(err, errCrash) {
					t.Fatalf("killed at call %d: %v", kill, err)
				}
				run(t, w, config)
				if w.theta != whole.theta {
					t.Fatalf("killed at call %d: weights differ", kill)
				}
				if !reflect.DeepEqual(w.state, whole.state) {
					t.Fatalf("killed at call %d: state %+v, want %+v", kill, *w.state, *whole.state)
				}
				if w.published != whole.published {
					t.Fatalf("killed at call %d: published v%d, want v%d", kill, w.published, whole.published)
				}
			}
		})
	}
}

// With rare checkpoints the resumed learner repeats steps, but neither policy
// versions nor consumed groups go back, and the run ends.
func TestResumeFromAnOldCheckpointMovesOn(t *testing.T) {
	config := testConfig()
	config.CheckpointEvery = 4
	probe := newWorld()
	run(t, probe, config)
	for kill := 1; kill <= probe.calls; kill += 3 {
		w := newWorld()
		w.killAt = kill
		l, err := w.learner(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context()); err == nil {
			t.Fatalf("not killed at call %d", kill)
		}
		before := w.published
		run(t, w, config)
		if w.published < before || w.state.Step != config.Steps {
			t.Fatalf("killed at call %d: policy v%d after v%d, step %d", kill, w.published, before, w.state.Step)
		}
	}
}

// A checkpoint older than what replay has forgotten: those credits come back to
// the account, or the learner would wait for them for ever.
func TestResumeFromARestoredBackupDoesNotStarve(t *testing.T) {
	w, config := newWorld(), testConfig()
	config.Steps = 4
	run(t, w, config)
	backup, theta := *w.state, w.theta
	config.Steps = 9
	run(t, w, config)
	w.state, w.theta = &backup, theta
	l := run(t, w, config)
	if got := l.State(); got.Budget.Returned == 0 || got.Version <= 9 {
		t.Fatalf("state after the restored backup: %+v", got)
	}
}

// No step waits for ever, whatever share of the groups is of no use.
func TestLearnerCannotStarve(t *testing.T) {
	w, config := newWorld(), testConfig()
	w.fail = func(i uint64) bool { return i%4 != 0 }
	w.stale = func(i uint64) bool { return i%8 == 4 }
	w.lose = func(i uint64) bool { return i%3 == 0 }
	w.full = 3
	l := run(t, w, config)
	if l.state.Step != config.Steps || l.state.Budget.Returned == 0 {
		t.Fatalf("state %+v", l.state)
	}
	for i, m := range w.steps {
		if m.Step != uint64(i+1) {
			t.Fatalf("step %d was reported as number %d", m.Step, i+1)
		}
	}
}

// A group that taught nothing may come again after a restart of replay. It must
// not be committed twice.
func TestGroupOfferedAgainIsConsumedOnce(t *testing.T) {
	w := newWorld()
	w.fail = func(uint64) bool { return true }
	l, err := w.learner(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	group := w.play(l.credit(l.state.Budget.Issue()))
	h := &harvest{taken: make(map[uint64]bool)}
	l.take(h, &group)
	l.take(h, &group)
	if len(l.state.Consumed) != 1 || h.dropped != 1 || h.repeated != 1 {
		t.Errorf("consumed %v, dropped %d, repeated %d", l.state.Consumed, h.dropped, h.repeated)
	}
}

func TestHopelessStepEndsWithoutUpdate(t *testing.T) {
	always := func(uint64) bool { return true }
	for _, hopeless := range []*world{{fail: always}, {stale: always}} {
		w, config := newWorld(), testConfig()
		w.fail, w.stale = hopeless.fail, hopeless.stale
		l := run(t, w, config)
		if w.model.updates != 0 || l.state.Version != 0 || w.published != 0 {
			t.Fatalf("%d updates, version %d", w.model.updates, l.state.Version)
		}
	}
}

// Contract of design §5: issued ≤ (version+1+η)·B + returned, so that no group
// is more than η versions behind.
func TestStalenessIsBounded(t *testing.T) {
	for _, lag := range []int{0, 1, 3} {
		w, config := newWorld(), testConfig()
		config.Lag, config.Steps = lag, 20
		l := run(t, w, config)
		for _, m := range w.steps {
			if m.LagMax > uint64(lag) {
				t.Errorf("lag %d: step %d learned from a group %d versions old", lag, m.Step, m.LagMax)
			}
		}
		if w.maxOpen > config.GroupsPerStep*(1+lag) {
			t.Errorf("lag %d: %d groups waited at once", lag, w.maxOpen)
		}
		if open := l.state.Budget.Open; len(open) > config.GroupsPerStep {
			t.Errorf("lag %d: %d credits were issued in vain", lag, len(open))
		}
	}
}

func TestFencedLearnerStops(t *testing.T) {
	w := newWorld()
	l, err := w.learner(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	l.Publisher = fenced{w}
	if err := l.Run(t.Context()); !errors.Is(err, forager.ErrFenced) {
		t.Fatalf("got %v", err)
	}
	if w.any {
		t.Fatal("a fenced learner published")
	}
}

// TestLostLeaseEndsAllEffects takes the lease away at each moment at which the
// learner asks for it: from then on it does nothing that others see.
func TestLostLeaseEndsAllEffects(t *testing.T) {
	config := testConfig()
	config.Steps, config.CheckpointEvery = 3, 2
	whole := newWorld()
	run(t, whole, config)
	for at := 1; at <= whole.holds; at++ {
		w := newWorld()
		w.lostAt = at
		l, err := w.learner(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context()); !errors.Is(err, forager.ErrFenced) {
			t.Errorf("lost at question %d of %d: got %v", at, whole.holds, err)
		}
		if len(w.late) > 0 {
			t.Errorf("lost at question %d of %d: afterwards %v", at, whole.holds, w.late)
		}
	}
}

type fenced struct{ *world }

func (fenced) Publish(context.Context, forager.Version, uint64) error {
	return fmt.Errorf("publish: %w", forager.ErrFenced)
}

func TestNonFiniteStepsAreSkippedAndCounted(t *testing.T) {
	w, config := newWorld(), testConfig()
	l, err := w.learner(config)
	if err != nil {
		t.Fatal(err)
	}
	w.model.broken = func(n int) bool { return n == 2 || n == 3 }
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.state.NonFinite != 2 || l.state.Step != 10 || l.state.Version != 8 || w.published != 8 {
		t.Fatalf("state %+v, published v%d", l.state, w.published)
	}

	w = newWorld()
	if l, err = w.learner(Config(config)); err != nil {
		t.Fatal(err)
	}
	w.model.broken = func(int) bool { return true }
	config.Steps = 100
	l.config = config
	if err := l.Run(t.Context()); err == nil {
		t.Fatal("a broken model trains for ever")
	}
}

func TestCancelledRunLeavesACheckpointOfItsLastStep(t *testing.T) {
	w, config := newWorld(), testConfig()
	config.CheckpointEvery = 100
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := w.learner(config)
	if err != nil {
		t.Fatal(err)
	}
	l.Reporter = stopAfter{w, 3, cancel}
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if l.Finished() || w.state.Step != 3 {
		t.Fatalf("checkpoint of step %d", w.state.Step)
	}
	run(t, w, config)
}

type stopAfter struct {
	*world
	step uint64
	stop func()
}

func (s stopAfter) Step(m StepMetrics) {
	s.world.Step(m)
	if m.Step == s.step {
		s.stop()
	}
}

func TestTimeLimitCountsEarlierSessions(t *testing.T) {
	w, config := newWorld(), testConfig()
	config.TimeLimit = time.Minute
	w.state = &State{Run: "run", Elapsed: time.Hour}
	l := run(t, w, config)
	if l.state.Step != 0 {
		t.Fatalf("%d steps after the time limit", l.state.Step)
	}
}

// TestTimeIsUpWithinAStep: the checkpoint of a run that is over says so, and
// what was gathered in vain is offered again.
func TestTimeIsUpWithinAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, config := newWorld(), testConfig()
		config.Steps, config.TimeLimit = 1<<20, 50*time.Second
		w.tick = 4 * time.Second // more than one sample makes a step
		l := run(t, w, config)
		if w.state.Elapsed < config.TimeLimit || w.state.Step != uint64(len(w.steps)) || w.state.Step == 0 {
			t.Fatalf("the checkpoint is of step %d after %v, %d are reported", w.state.Step, w.state.Elapsed, len(w.steps))
		}
		again := run(t, w, config)
		if again.state.Step != l.state.Step {
			t.Fatalf("a run that was over went on to step %d", again.state.Step)
		}
	})
}

func TestBudgetAddsUp(t *testing.T) {
	f := func(t *testing.T, ops []byte) {
		var b Budget
		for _, op := range ops {
			switch op % 3 {
			case 0:
				for b.Due(int(op)) > 0 {
					b.Issue()
				}
			case 1:
				open := b.IsOpen(uint64(op / 3))
				if b.Learn(uint64(op/3)) != open {
					t.Fatal("Learn disagrees with IsOpen")
				}
			case 2:
				b.Return(uint64(op / 3))
			}
			if err := b.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f(t, []byte{30, 1, 4, 7, 2, 5, 5, 33, 255})
	if got := Window(4, 1, 100); got != 8 {
		t.Errorf("window %d, want 8", got)
	}
	if got := Window(4, 1, 1); got != 4 {
		t.Errorf("window %d before the last step, want 4", got)
	}
	if err := (&Budget{Issued: 3, Open: []uint64{1}}).Validate(); err == nil {
		t.Error("a wrong account passes")
	}
}

func TestTasksVisitEachOncePerEpoch(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e"}
	tasks, err := NewTasks(ids, 3)
	if err != nil {
		t.Fatal(err)
	}
	var orders [][]string
	for epoch := range uint64(4) {
		var order []string
		for i := range uint64(5) {
			id, _ := tasks.At(epoch*5 + i)
			order = append(order, id)
		}
		orders = append(orders, slices.Clone(order))
		slices.Sort(order)
		if !slices.Equal(order, ids) {
			t.Fatalf("epoch %d visits %v", epoch, order)
		}
	}
	again, seed := tasks.At(0)
	other, seed2 := tasks.At(1)
	if again != orders[0][0] || other != orders[0][1] || seed == seed2 {
		t.Fatal("the stream is not a function of the index")
	}
	if slices.Equal(orders[0], orders[1]) && slices.Equal(orders[1], orders[2]) {
		t.Fatal("epochs are not shuffled")
	}
}

func TestLearningRateSchedule(t *testing.T) {
	c := Config{Steps: 11, WarmupSteps: 1, LearningRate: 1, FinalLearningRate: 0.1}
	for decay, want := range map[string][3]float64{
		DecayConstant: {0.5, 1, 1}, DecayLinear: {0.5, 1, 0.19}, DecayCosine: {0.5, 1, 0.1 + 0.45*(1-math.Cos(math.Pi/10))},
	} {
		c.Decay = decay
		for i, step := range []uint64{0, 1, 10} {
			if got := c.learningRate(step); got < want[i]-1e-9 || got > want[i]+1e-9 {
				t.Errorf("%s: rate of step %d is %v, want %v", decay, step, got, want[i])
			}
		}
	}
}

// TestLastStepLearns: a decay to 0 leaves something for every step.
func TestLastStepLearns(t *testing.T) {
	for _, decay := range []string{DecayLinear, DecayCosine} {
		for _, warmup := range []uint64{0, 1, 2, 3, 4} {
			c := Config{Steps: 3, WarmupSteps: warmup, LearningRate: 1, Decay: decay}
			for step := range c.Steps {
				if got := c.learningRate(step); got <= 0 || got > 1 {
					t.Errorf("%s after %d steps of warm-up: rate of step %d is %v", decay, warmup, step, got)
				}
			}
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Config{}).Validate(); err == nil {
		t.Fatal("an empty configuration passes")
	}
	w := newWorld()
	w.state = &State{Run: "another"}
	if _, err := w.learner(testConfig()); err == nil {
		t.Fatal("a checkpoint of another run passes")
	}
}
