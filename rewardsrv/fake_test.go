package rewardsrv

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// stream is an Intake and the Labels of a run in memory.
type stream struct {
	digests chan forager.TurnDigest

	mu       sync.Mutex
	grown    *sync.Cond
	messages [][]forager.Annotation
	broken   bool // Publish fails
}

func newStream() *stream {
	s := &stream{digests: make(chan forager.TurnDigest, 200_000)}
	s.grown = sync.NewCond(&s.mu)
	return s
}

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
	s.messages = append(s.messages, append([]forager.Annotation(nil), annotations...))
	s.grown.Broadcast()
	return nil
}

func (s *stream) Last(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.messages)), nil
}

func (s *stream) Replay(ctx context.Context, from uint64, fn func(uint64, []forager.Annotation) error) error {
	last, _ := s.Last(ctx)
	for ; from <= last; from++ {
		s.mu.Lock()
		m := s.messages[from-1]
		s.mu.Unlock()
		if err := fn(from, m); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) Follow(ctx context.Context, from uint64, fn func(uint64, []forager.Annotation) error) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.grown.Broadcast()
	})()
	for ; ; from++ {
		s.mu.Lock()
		for uint64(len(s.messages)) < from && ctx.Err() == nil {
			s.grown.Wait()
		}
		if ctx.Err() != nil {
			s.mu.Unlock()
			return nil
		}
		m := s.messages[from-1]
		s.mu.Unlock()
		if err := fn(from, m); err != nil {
			return err
		}
	}
}

func (s *stream) setBroken(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *stream) labels() []forager.Annotation {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []forager.Annotation
	for _, m := range s.messages {
		all = append(all, m...)
	}
	return all
}

// paid counts the labels that a judge call was paid for, by query.
func (s *stream) paid() map[string]int {
	calls := map[string]int{}
	for _, a := range s.labels() {
		if a.Judgement.Query != "" {
			calls[a.Judgement.Query]++
		}
	}
	return calls
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
	label   func(ctx context.Context, item rubric.Item) (Verdict, error)
	unit    rubric.Unit
	version string

	mu    sync.Mutex
	calls map[string]int
}

func newScripted(label func(context.Context, rubric.Item) (Verdict, error)) *scripted {
	return &scripted{label: label, unit: rubric.Turn, version: "v1", calls: map[string]int{}}
}

func (*scripted) Judge() string       { return "scripted" }
func (j *scripted) Rubric() string    { return j.version }
func (j *scripted) Unit() rubric.Unit { return j.unit }
func (*scripted) History() bool       { return false }

func (j *scripted) Label(ctx context.Context, item rubric.Item) (Verdict, error) {
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

func yes(context.Context, rubric.Item) (Verdict, error) {
	return Verdict{Value: 1, Rationale: "good"}, nil
}

func digestOf(rollout string, turn int, query string) forager.TurnDigest {
	return forager.TurnDigest{RolloutID: rollout, Turn: turn, TaskID: "bridge", Question: "q", Query: query, Passages: []forager.Passage{{ID: "p2"}}, Observation: "o"}
}

func openIndex(t testing.TB, path string) *labelstore.Store {
	t.Helper()
	index, err := labelstore.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	return index
}

// testDeps is what a server under test works with; fields may be replaced.
func testDeps(t testing.TB, s *stream, log *bytes.Buffer, grader Grader) Deps {
	return Deps{
		Intake: s, Labels: s, Tasks: taskList{bridge()}, Judges: []Judge{fixed{"helpful", grader}},
		Index:  openIndex(t, filepath.Join(t.TempDir(), "labels.db")),
		Logger: testLogger(log), Now: time.Now, Random: rand.New(rand.NewPCG(1, 1)),
	}
}

type running struct {
	*Server
	log  *bytes.Buffer
	stop func()
}

// start runs a server; stop ends it and waits.
func start(t *testing.T, s *stream, grader Grader, change func(*Config, *Deps)) running {
	t.Helper()
	config, log := DefaultConfig(), &bytes.Buffer{}
	config.MaxInFlight = 8
	deps := testDeps(t, s, log, grader)
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
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}}
}

func testLogger(log *bytes.Buffer) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(log, nil))
}
