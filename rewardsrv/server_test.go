package rewardsrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// stream is an Intake and an Output in memory. What was published is History.
type stream struct {
	digests chan forager.TurnDigest

	mu        sync.Mutex
	published []forager.Annotation
	broken    bool // Publish fails
}

func newStream() *stream { return &stream{digests: make(chan forager.TurnDigest, 200_000)} }

func (s *stream) Next(ctx context.Context, limit int) ([]forager.TurnDigest, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case d := <-s.digests:
		out := []forager.TurnDigest{d}
		for len(out) < limit && len(s.digests) > 0 {
			out = append(out, <-s.digests)
		}
		return out, nil
	}
}

func (s *stream) Publish(_ context.Context, annotations []forager.Annotation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("stream is away")
	}
	s.published = append(s.published, annotations...)
	return nil
}

func (s *stream) setBroken(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *stream) labels() []forager.Annotation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]forager.Annotation(nil), s.published...)
}

func (s *stream) Each(_ context.Context, fn func(forager.Annotation) error) error {
	for _, a := range s.labels() {
		if err := fn(a); err != nil {
			return err
		}
	}
	return nil
}

type taskList []forager.Task

func (l taskList) Task(id string) (forager.Task, error) {
	for _, t := range l {
		if t.ID == id {
			return t, nil
		}
	}
	return forager.Task{}, forager.ErrNotFound
}

// scripted is a judge that a test steers; it counts its calls by query.
type scripted struct {
	label func(ctx context.Context, item Item) (Verdict, error)

	mu    sync.Mutex
	calls map[string]int
}

func newScripted(label func(context.Context, Item) (Verdict, error)) *scripted {
	return &scripted{label: label, calls: map[string]int{}}
}

func (*scripted) Name() string   { return "scripted" }
func (*scripted) Rubric() string { return "v1" }

func (j *scripted) Label(ctx context.Context, item Item) (Verdict, error) {
	j.mu.Lock()
	j.calls[item.Query]++
	j.mu.Unlock()
	return j.label(ctx, item)
}

func (j *scripted) total() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, c := range j.calls {
		n += c
	}
	return n
}

func yes(context.Context, Item) (Verdict, error) { return Verdict{Value: 1, Rationale: "good"}, nil }

func digestOf(rollout string, turn int, query string) forager.TurnDigest {
	return forager.TurnDigest{RolloutID: rollout, Turn: turn, TaskID: "bridge", Question: "q", Query: query, Passages: []forager.Passage{{ID: "p2"}}}
}

type running struct {
	*Server
	log  *bytes.Buffer
	stop func()
}

// start runs a server; stop ends it and waits.
func start(t *testing.T, s *stream, judge Judge, change func(*Config, *Deps)) running {
	t.Helper()
	config, log := DefaultConfig(), &bytes.Buffer{}
	deps := Deps{
		Intake: s, Output: s, Tasks: taskList{bridge()}, Judge: judge,
		Logger: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, Random: rand.New(rand.NewPCG(1, 1)),
	}
	if change != nil {
		change(&config, &deps)
	}
	server, err := New(config, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	return running{server, log, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}}
}

func TestSharedKeyIsJudgedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gate := newStream(), make(chan struct{})
		judge := newScripted(func(ctx context.Context, item Item) (Verdict, error) {
			<-gate
			return Verdict{Value: 1, Rationale: "It is Brussels, capital of Belgium."}, nil
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
		}
		if stats := r.Stats(); stats.CacheHits != 1 || stats.Labelled != 1 || stats.Published != 6 || stats.Judged[outcomeHelpful] != 1 {
			t.Errorf("at the end: %+v", stats)
		}
	})
}

func TestFailedKeyIsNullNotZero(t *testing.T) {
	for name, label := range map[string]func(context.Context, Item) (Verdict, error){
		"unparsable":   func(context.Context, Item) (Verdict, error) { return Verdict{}, fmt.Errorf("garbage: %w", ErrUnusable) },
		"not a number": func(context.Context, Item) (Verdict, error) { return Verdict{Value: math.NaN()}, nil },
		"error":        func(context.Context, Item) (Verdict, error) { return Verdict{}, errors.New("status 500") },
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
				if judge.total() != 2 || len(labels) != 2 || labels[0].Value != nil || labels[1].Value != nil {
					t.Errorf("%d calls, labels %+v", judge.total(), labels)
				}
				if stats := r.Stats(); stats.Failed != 1 || stats.Labelled != 0 {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

func TestRestartPaysNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		judge := newScripted(func(_ context.Context, item Item) (Verdict, error) {
			if strings.HasSuffix(item.Query, "7") {
				return Verdict{}, ErrUnusable
			}
			return Verdict{Value: 1}, nil
		})
		play := func(name string) {
			r := start(t, s, judge, func(_ *Config, d *Deps) { d.History = s })
			for i := range 50 {
				s.digests <- digestOf(fmt.Sprint(name, i), 0, fmt.Sprint("query ", i))
			}
			synctest.Wait()
			r.stop()
		}
		play("first")
		paid := judge.total()
		play("second")
		if again := judge.total(); again != paid || paid != 50+5 {
			t.Errorf("%d calls, after the restart %d", paid, again)
		}
		labels := s.labels()
		if len(labels) != 100 {
			t.Fatalf("%d labels", len(labels))
		}
		for _, a := range labels[50:] {
			if !strings.HasPrefix(a.RolloutID, "second") || (a.Value == nil) != strings.HasSuffix(a.RolloutID, "7") {
				t.Errorf("%+v", a)
			}
		}
	})
}

func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		var down atomic.Bool
		down.Store(true)
		judge := newScripted(func(ctx context.Context, item Item) (Verdict, error) {
			if down.Load() {
				return Verdict{}, errors.New("connection refused")
			}
			return yes(ctx, item)
		})
		r := start(t, s, judge, func(c *Config, _ *Deps) { c.MaxInFlight = 1 })
		for i := range 20 {
			s.digests <- digestOf("r", i, fmt.Sprint("query ", i))
		}
		time.Sleep(time.Hour) // of the bubble's clock
		synctest.Wait()
		// 5 calls open the circuit; then one per pause: 1 s, 2 s, ... to 1 min less jitter.
		if n := judge.total(); n < 60 || n > 100 {
			t.Errorf("%d calls of a dead judge in an hour", n)
		}
		if stats := r.Stats(); !stats.JudgeDown || stats.Failed != 2 || stats.Queued != 18 {
			t.Errorf("after an hour: %+v", stats)
		}
		down.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if stats := r.Stats(); stats.JudgeDown || stats.Labelled != 18 || stats.Queued != 0 {
			t.Errorf("after it came back: %+v", stats)
		}
		r.stop()
		if n := strings.Count(r.log.String(), "judge fails"); n != 1 {
			t.Errorf("the outage is logged %d times:\n%s", n, r.log)
		}
	})
}

func TestPublishIsRetriedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		s.setBroken(true)
		r := start(t, s, newScripted(yes), func(c *Config, _ *Deps) { c.MaxUnpublished, c.PublishBatch = 4, 2 })
		s.digests <- digestOf("r", 0, "same query")
		synctest.Wait() // labelled: all others are answered from the table
		for i := range 99 {
			s.digests <- digestOf("r", i+1, "same query")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if stats := r.Stats(); stats.Published != 0 || stats.Digests != 6 { // 1 being published, 4 in the queue, 1 in hand
			t.Errorf("with a broken stream: %+v", stats)
		}
		s.setBroken(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(s.labels()); n != 100 {
			t.Errorf("%d of 100 labels published, dropped %v", n, r.Stats().Dropped)
		}

		// A stream that never comes back must not keep the server from ending.
		s.setBroken(true)
		s.digests <- digestOf("z", 0, "same query")
		synctest.Wait()
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > DefaultConfig().ShutdownGrace+time.Second {
			t.Errorf("stopping took %v", took)
		}
		if n := r.Stats().Dropped[dropShutdown]; n != 1 {
			t.Errorf("%d labels counted as lost", n)
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
		for _, d := range []forager.TurnDigest{stranger, stranger, large, {}, digestOf("r", 2, "x")} {
			s.digests <- d
		}
		synctest.Wait()
		r.stop()
		if d := r.Stats().Dropped; d[dropUnknownTask] != 2 || d[dropTooLarge] != 1 || d[dropMalformed] != 1 || len(s.labels()) != 1 {
			t.Errorf("%v, %d labels", d, len(s.labels()))
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
		if exported[dropUnknownTask] != 2 || exported[dropTooLarge] != 1 || exported[dropMalformed] != 1 || len(families) < 9 {
			t.Errorf("exported %v in %d families", exported, len(families))
		}
		if _, err := New(DefaultConfig(), Deps{Intake: s, Output: s, Tasks: taskList{}, Logger: slog.Default(), Now: time.Now, Random: rand.New(rand.NewPCG(1, 1)), Registerer: registry}); err == nil {
			t.Error("two servers share one registry without an error")
		}
	})
}

// TestFlood sends 100,000 digests of 20,000 steps through the server: each step
// goes to the judge at most once, and every turn is published or counted.
func TestFlood(t *testing.T) {
	const digests = 100_000
	synctest.Test(t, func(t *testing.T) {
		s, judge := newStream(), newScripted(yes)
		r := start(t, s, judge, func(c *Config, _ *Deps) { c.MaxQueued = 500 })
		for i := range digests {
			s.digests <- digestOf(fmt.Sprint("r", i), 0, fmt.Sprint("query ", i/8*8%20_000))
		}
		synctest.Wait()
		stats := r.Stats()
		r.stop()
		for query, n := range judge.calls {
			if n != 1 {
				t.Fatalf("%s was judged %d times", query, n)
			}
		}
		lost := stats.Dropped[dropQueueFull] + stats.Dropped[dropWaitingFull]
		if stats.Digests != digests || stats.Published+lost != digests || stats.Queued+stats.InFlight != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// TestWithLLM runs the whole server against a real HTTP endpoint, first dead,
// then alive.
func TestWithLLM(t *testing.T) {
	e := newEndpoint(t, sensible)
	s := newStream()
	r := start(t, s, nil, func(c *Config, _ *Deps) {
		c.Judge, c.LLM.BaseURL, c.LLM.Model = JudgeLLM, e.URL+"/v1", "m"
	})
	d := digestOf("r", 3, "Chimay")
	d.Passages[0].Text = "Chimay comes from Belgium."
	s.digests <- d
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(time.Millisecond); len(s.labels()) == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("no label after 20 s")
		}
	}
	r.stop()
	if a := s.labels()[0]; a.Value == nil || *a.Value != 1 || a.Judge != "llm:m" || a.Latency <= 0 || a.Rationale != "The passage links the beer to its country." {
		t.Errorf("%+v", a)
	}

	e.Close()
	r = start(t, newStream(), nil, func(c *Config, _ *Deps) {
		c.Judge, c.LLM.BaseURL, c.LLM.Model = JudgeLLM, e.URL+"/v1", "m"
	})
	r.check(t.Context())
	r.stop()
	if !strings.Contains(r.log.String(), "judge is not ready") {
		t.Errorf("a dead endpoint at start is not reported:\n%s", r.log)
	}
}

func TestHistoryError(t *testing.T) {
	s := newStream()
	config := DefaultConfig()
	server, err := New(config, Deps{
		Intake: s, Output: s, Tasks: taskList{}, History: brokenHistory{},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.New(rand.NewPCG(1, 1)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context()); err == nil {
		t.Error("the server runs without its history: labels would be paid for twice")
	}
}

type brokenHistory struct{}

func (brokenHistory) Each(context.Context, func(forager.Annotation) error) error {
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
		"address":   func(c *Config) { c.Judge, c.LLM.BaseURL, c.LLM.Model = JudgeLLM, "localhost:8000", "m" },
		"in flight": func(c *Config) { c.MaxInFlight = 0 },
		"bytes":     func(c *Config) { c.MaxQueuedBytes = c.MaxDigestBytes - 1 },
		"age floor": func(c *Config) { c.OldestEvery = -1 },
		"pause":     func(c *Config) { c.CircuitPause = 0 },
		"max pause": func(c *Config) { c.CircuitMaxPause = time.Millisecond },
		"temperature": func(c *Config) {
			c.Judge, c.LLM.BaseURL, c.LLM.Model, c.LLM.Temperature = JudgeLLM, "http://h/v1", "m", math.NaN()
		},
	} {
		c := DefaultConfig()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func BenchmarkServer(b *testing.B) {
	s := newStream()
	server, err := New(DefaultConfig(), Deps{
		Intake: s, Output: s, Tasks: taskList{bridge()},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.New(rand.NewPCG(1, 1)),
	})
	if err != nil {
		b.Fatal(err)
	}
	out := make(chan forager.Annotation, 1)
	d := digestOf("r", 0, "capital of belgium")
	for i := range 3 {
		d.Passages = append(d.Passages, forager.Passage{ID: fmt.Sprint(i), Title: "Title", Text: strings.Repeat("some words of a passage ", 25)})
	}
	for i := 0; b.Loop(); i++ {
		d.Query = fmt.Sprint("query ", i/8) // a group of eight shares a step
		if err := server.accept(d, out); err != nil {
			b.Fatal(err)
		}
		if i%8 == 0 {
			item, _ := server.ledger.take(context.Background())
			server.label(context.Background(), item, out)
		}
		select {
		case <-out:
		default:
		}
	}
}
