package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

func TestSharedKeyIsJudgedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gate := newStream(), make(chan struct{})
		judge := newScripted(func(ctx context.Context, item rubric.Item) (Verdict, error) {
			<-gate
			return Verdict{Value: 1, Rationale: "It is Brussels, capital of Belgium.", Judgement: forager.Judgement{Model: "m"}}, nil
		})
		r := start(t, s, judge, func(c *Config, _ *Deps) { c.MaxWaiting = 5 })
		for i := range 7 { // one is judged, five wait, two are dropped
			s.digests <- digestOf(fmt.Sprint("r", i), i, "capital of belgium")
		}
		synctest.Wait()
		if stats := r.Stats(); stats.InFlight != 1 || stats.Queued != 0 || stats.Dropped[dropWaitingFull] != 2 {
			t.Errorf("while judging: %+v", stats)
		}
		close(gate)
		synctest.Wait()
		s.digests <- digestOf("late", 9, "The capital of BELGIUM?")
		synctest.Wait()
		r.stop()

		labels := s.labels()
		if judge.total() != 1 || len(labels) != 6 {
			t.Fatalf("%d judge calls, %d labels", judge.total(), len(labels))
		}
		for i, a := range labels {
			wantID, wantTurn := fmt.Sprint("r", i), i
			if i == 5 {
				wantID, wantTurn = "late", 9
			}
			if a.RolloutID != wantID || a.Turn != wantTurn || a.Value == nil || *a.Value != 1 || a.Source != "helpful" ||
				a.Key != labels[0].Key || a.Judge != "scripted" || a.Rubric != "v1" || a.Time.IsZero() {
				t.Errorf("label %d: %+v", i, a)
			}
			if strings.Contains(a.Rationale, "Brussels") || strings.Contains(a.Rationale, "Belgium") {
				t.Errorf("rationale names an answer: %q", a.Rationale)
			}
			paid := forager.Judgement{Model: "m", TaskID: "bridge", Question: "q", Query: "capital of belgium", Observation: "o"}
			if i > 0 {
				paid = forager.Judgement{}
			}
			if a.Judgement != paid {
				t.Errorf("label %d: judgement %+v", i, a.Judgement)
			}
		}
		if stats := r.Stats(); stats.Hits != 1 || stats.Published != 6 || stats.Judged[resultPositive] != 1 || stats.Wanted != 8 {
			t.Errorf("at the end: %+v", stats)
		}
	})
}

// TestUnusableAnswers: asked once more, then null for good, also for later turns.
func TestUnusableAnswers(t *testing.T) {
	for name, label := range map[string]func(context.Context, rubric.Item) (Verdict, error){
		"unparsable": func(context.Context, rubric.Item) (Verdict, error) {
			return Verdict{Judgement: forager.Judgement{Answer: "hm"}}, fmt.Errorf("garbage: %w", ErrUnusable)
		},
		"not a number": func(context.Context, rubric.Item) (Verdict, error) {
			return Verdict{Value: math.NaN(), Judgement: forager.Judgement{Answer: "hm"}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, judge := newStream(), newScripted(label)
				r := start(t, s, judge, nil)
				s.digests <- digestOf("r", 0, "x")
				synctest.Wait()
				s.digests <- digestOf("r", 1, "x")
				synctest.Wait()
				r.stop()
				labels := s.labels()
				if judge.total() != 2 || len(labels) != 2 || labels[0].Value != nil || labels[1].Value != nil || labels[0].Judgement.Answer != "hm" {
					t.Errorf("%d calls, labels %+v", judge.total(), labels)
				}
				if stats := r.Stats(); stats.Judged[resultUnusable] != 2 {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

// TestNoAnswer: a step that the judge does not answer to is dropped, not failed:
// a later digest may bring it back.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		var down atomic.Bool
		down.Store(true)
		judge := newScripted(func(ctx context.Context, item rubric.Item) (Verdict, error) {
			if down.Load() {
				return Verdict{}, errors.New("status 500")
			}
			return yes(ctx, item)
		})
		r := start(t, s, judge, nil)
		s.digests <- digestOf("r", 0, "x")
		synctest.Wait()
		if stats := r.Stats(); judge.total() != maxBroken || stats.Dropped[dropJudgeError] != 1 || len(s.labels()) != 0 {
			t.Errorf("%d calls, %+v", judge.total(), stats)
		}
		down.Store(false)
		s.digests <- digestOf("r", 1, "x")
		synctest.Wait()
		r.stop()
		if labels := s.labels(); len(labels) != 1 || labels[0].Value == nil {
			t.Errorf("%+v", labels)
		}
	})
}

// TestRestartPaysNothingTwice: with the index of before, and with a new one.
func TestRestartPaysNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newStream(), filepath.Join(t.TempDir(), "labels.db")
		judge := newScripted(func(_ context.Context, item rubric.Item) (Verdict, error) {
			if strings.HasSuffix(item.Query, "7") {
				return Verdict{}, ErrUnusable
			}
			return Verdict{Value: 1}, nil
		})
		play := func(name, path string) {
			r := start(t, s, judge, func(c *Config, d *Deps) {
				d.Index = openIndex(t, path)
				c.MaxLabels = 3 // the others are found in the index
			})
			for range 2 {
				for i := range 50 {
					s.digests <- digestOf(fmt.Sprint(name, i), len(s.digests), fmt.Sprint("query ", i))
				}
				synctest.Wait()
			}
			r.stop()
			if err := r.deps.Index.Close(); err != nil {
				t.Error(err)
			}
		}
		play("first", path)
		paid := judge.total()
		play("second", path)
		play("third", filepath.Join(t.TempDir(), "labels.db"))
		if again := judge.total(); again != paid || paid != 50+5 {
			t.Errorf("%d calls, after the restarts %d", paid, again)
		}
		labels := s.labels()
		if len(labels) != 300 {
			t.Fatalf("%d labels", len(labels))
		}
		for _, a := range labels {
			if (a.Value == nil) != strings.HasSuffix(a.RolloutID, "7") {
				t.Errorf("%+v", a)
			}
		}
	})
}

// TestIndexOfAnotherStream: an index that is ahead of the stream is built anew.
func TestIndexOfAnotherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "labels.db")
		for range 2 {
			s, judge := newStream(), newScripted(yes)
			r := start(t, s, judge, func(_ *Config, d *Deps) { d.Index = openIndex(t, path) })
			s.digests <- digestOf("r", 0, "x")
			synctest.Wait()
			r.stop()
			if judge.total() != 1 || len(s.labels()) != 1 {
				t.Errorf("%d calls, %d labels", judge.total(), len(s.labels()))
			}
			if err := r.deps.Index.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDeadJudgeIsAskedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		var down atomic.Bool
		down.Store(true)
		scripted := newScripted(func(ctx context.Context, item rubric.Item) (Verdict, error) {
			if down.Load() {
				return Verdict{}, &judge.UnavailableError{RetryAfter: 15 * time.Second, Reason: errors.New("connection refused")}
			}
			return yes(ctx, item)
		})
		r := start(t, s, scripted, func(c *Config, _ *Deps) { c.MaxInFlight = 4 })
		for i := range 20 {
			s.digests <- digestOf("r", i, fmt.Sprint("query ", i))
		}
		time.Sleep(time.Hour) // of the bubble's clock
		synctest.Wait()
		if n := scripted.total(); n < 200 || n > 1000 { // up to 4 calls every 15 s
			t.Errorf("%d calls of a dead judge in an hour", n)
		}
		if stats := r.Stats(); !stats.JudgeDown || stats.Queued != 20 || stats.InFlight != 0 {
			t.Errorf("after an hour: %+v", stats)
		}
		down.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if stats := r.Stats(); stats.JudgeDown || len(s.labels()) != 20 || stats.Queued != 0 {
			t.Errorf("after it came back: %+v", stats)
		}
		r.stop()
		if n := strings.Count(r.log.String(), "judge cannot be asked"); n != 1 {
			t.Errorf("the outage is logged %d times:\n%s", n, r.log)
		}
	})
}

func TestPublishIsRetriedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		s.setBroken(true)
		judge := newScripted(yes)
		r := start(t, s, judge, func(c *Config, _ *Deps) { c.MaxUnpublished, c.PublishBatch = 4, 2 })
		s.digests <- digestOf("r", 0, "same query")
		synctest.Wait() // labelled: all others are answered from the table
		for i := range 99 {
			s.digests <- digestOf("r", i+1, "same query")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if stats := r.Stats(); stats.Published != 0 || stats.Wanted != 7 { // 2 being published, 4 in the queue, 1 in hand
			t.Errorf("with a broken stream: %+v", stats)
		}
		s.setBroken(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(s.labels()); n != 100 {
			t.Errorf("%d of 100 labels published, dropped %v", n, r.Stats().Dropped)
		}

		// Labels that are not durable are a bound on the judge too.
		s.setBroken(true)
		paid := judge.total()
		for i := range 20 {
			s.digests <- digestOf("u", i, fmt.Sprint("another ", i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := judge.total() - paid; n > 4+8 { // and those in flight
			t.Errorf("%d steps were judged while no label could be published", n)
		}

		// A stream that never comes back must not keep the server from ending.
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > DefaultConfig().ShutdownGrace+releaseTimeout+time.Second {
			t.Errorf("stopping took %v", took)
		}
		if n := r.Stats().Dropped[dropShutdown]; n == 0 {
			t.Error("no label is counted as lost")
		}
	})
}

func TestDropsAreCountedByReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, registry := newStream(), prometheus.NewPedanticRegistry()
		r := start(t, s, newScripted(yes), func(c *Config, d *Deps) { c.MaxDigestBytes, d.Registerer = 100, registry })
		stranger := digestOf("r", 0, "x")
		stranger.TaskID = "other"
		large := digestOf("r", 1, strings.Repeat("x", 101))
		negative := digestOf("r", -1, "x")
		binary := digestOf("r", 3, "caf\xe9\xff")
		binary.Passages[0].Text, binary.Earlier = "\xc3\x28", []string{"\x80"}
		for _, d := range []forager.TurnDigest{stranger, stranger, large, {}, negative, digestOf("r", 2, "x"), binary} {
			s.digests <- d
		}
		synctest.Wait()
		r.stop()
		if d := r.Stats().Dropped; d[dropUnknownTask] != 2 || d[dropTooLarge] != 1 || d[dropMalformed] != 2 || len(s.labels()) != 2 {
			t.Errorf("%v, %d labels", d, len(s.labels()))
		}
		if paid := s.paid(); paid["caf\uFFFD"] != 1 {
			t.Errorf("invalid UTF-8 goes to the judge: %v", paid)
		}
		if n := strings.Count(r.log.String(), "cannot be labelled"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		exported := map[string]float64{}
		for _, f := range families {
			if f.GetName() == "forager_rewardsrv_dropped_total" {
				for _, m := range f.GetMetric() {
					exported[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		if exported[dropUnknownTask] != 2 || exported[dropTooLarge] != 1 || exported[dropMalformed] != 2 || len(families) < 14 {
			t.Errorf("exported %v in %d families", exported, len(families))
		}
		again := r.deps
		if _, err := New(DefaultConfig(), again); err == nil {
			t.Error("two servers share one registry without an error")
		}
	})
}

// TestFlood sends 100,000 digests of 20,000 steps through the server: each step
// goes to the judge at most once, and every turn is published or counted.
func TestFlood(t *testing.T) {
	digests := 100_000
	if testing.Short() {
		digests = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		s, judge := newStream(), newScripted(yes)
		r := start(t, s, judge, func(c *Config, _ *Deps) { c.MaxQueued = 500 })
		for i := range digests {
			s.digests <- digestOf(fmt.Sprint("r", i), 0, fmt.Sprint("query ", i/8*8%(digests/5)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		stats := r.Stats()
		r.stop()
		for query, n := range judge.calls {
			if n != 1 {
				t.Fatalf("%s was judged %d times", query, n)
			}
		}
		lost := stats.Dropped[dropQueueFull] + stats.Dropped[dropWaitingFull]
		if stats.Wanted != uint64(digests) || stats.Published+lost != uint64(digests) || stats.Queued+stats.InFlight != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// TestFreshness: three times as many steps as the judge can label, for ten
// minutes. The median of those labelled is fresh, and the oldest keep moving.
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		begun := time.Now()
		var ages []time.Duration
		var oldest []time.Duration // when the steps that waited for more than a minute came
		grader := newScripted(nil)
		grader.label = func(ctx context.Context, item rubric.Item) (Verdict, error) {
			sent, err := time.ParseDuration(item.Query)
			if err != nil {
				t.Error(err)
			}
			age := time.Since(begun) - sent
			ages = append(ages, age)
			if age > time.Minute {
				oldest = append(oldest, sent)
			}
			sleep(ctx, 100*time.Millisecond)
			return Verdict{Value: 1}, nil
		}
		r := start(t, s, grader, func(c *Config, _ *Deps) { c.MaxInFlight = 1 })
		for range 10 * 60 * 30 {
			s.digests <- digestOf("r", 0, fmt.Sprint(int64(time.Since(begun)), "ns"))
			time.Sleep(time.Second / 30)
		}
		r.stop()
		freshest := median(ages)
		if freshest > 2*time.Second {
			t.Errorf("median age of what is labelled is %v", freshest)
		}
		for i := 1; i < len(oldest); i++ {
			if oldest[i] < oldest[i-1] {
				t.Fatalf("the oldest do not move: %v after %v", oldest[i], oldest[i-1])
			}
		}
		if len(oldest) < len(ages)/10 {
			t.Errorf("%d of %d labels are of old steps", len(oldest), len(ages))
		}
		t.Logf("%d labelled; median age %v; %d were the oldest, the last of them came %v after the start", len(ages), freshest, len(oldest), oldest[len(oldest)-1])
	})
}

func TestHistoryError(t *testing.T) {
	s := newStream()
	deps := testDeps(t, s, nil, newScripted(yes))
	deps.Logger, deps.Labels = slog.New(slog.DiscardHandler), brokenHistory{s}
	server, err := New(DefaultConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context()); err == nil {
		t.Error("the server runs without its history: labels would be paid for twice")
	}
}

type brokenHistory struct{ Labels }

func (brokenHistory) Replay(context.Context, uint64, func(uint64, []forager.Annotation) error) error {
	return errors.New("stream is away")
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"source":    func(c *Config) { c.Source = "" },
		"judge":     func(c *Config) { c.Judge = "oracle" },
		"endpoint":  func(c *Config) { c.Judge = JudgeLLM },
		"rubrics":   func(c *Config) { c.Judge, c.Rubrics = JudgeLLM, nil },
		"in flight": func(c *Config) { c.MaxInFlight = 0 },
		"bytes":     func(c *Config) { c.MaxQueuedBytes = c.MaxDigestBytes - 1 },
		"age floor": func(c *Config) { c.OldestEvery = -1 },
		"lease":     func(c *Config) { c.ClaimLease = time.Hour },
		"model":     func(c *Config) { c.RewardModel.Kind = "oracle" },
		"interval":  func(c *Config) { c.RewardModel.Kind, c.RewardModel.PublishInterval = "ranking", 0 },
		"share":     func(c *Config) { c.RewardModel.Kind, c.RewardModel.MaxShare = "ranking", math.NaN() },
	} {
		c := DefaultConfig()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s passes", name)
		}
	}
	for _, kind := range []string{"none", "retrieval", "classification", "ranking"} {
		c := DefaultConfig()
		c.RewardModel.Kind = rewardmodel.Kind(kind)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
