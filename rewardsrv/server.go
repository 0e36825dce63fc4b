package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// Intake is where turn digests come from.
type Intake interface {
	// Next gives up to limit digests. It waits until there is one, or for a
	// bounded time, after which it may give none. Digests that were given are
	// not given again.
	Next(ctx context.Context, limit int) ([]forager.TurnDigest, error)
}

// Output is where labels go.
type Output interface {
	// Publish returns when the annotations are durable. After an error the same
	// annotations are published again, so a turn may get a label twice.
	Publish(ctx context.Context, annotations []forager.Annotation) error
}

// History is the labels published so far.
type History interface {
	// Each calls fn for every annotation, oldest first, and returns when there
	// are no more. It stops at the first error of fn.
	Each(ctx context.Context, fn func(forager.Annotation) error) error
}

// Tasks finds tasks by id.
type Tasks interface {
	// Task gives the task, or an error that wraps forager.ErrNotFound.
	Task(id string) (forager.Task, error)
}

// Deps is what the server works with.
type Deps struct {
	Intake  Intake
	Output  Output
	Tasks   Tasks
	History History // nil: start with an empty label table
	Judge   Judge   // nil: the one that Config.Judge names

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no Prometheus metrics
	Now        func() time.Time
	Random     *rand.Rand // for fences, label words and jitter; ought to be unpredictable
}

// Server labels search steps: each distinct step once, newest first, in
// bounded memory.
type Server struct {
	config  Config
	deps    Deps
	judge   Judge
	ledger  *ledger
	circuit *circuit
	metrics *metrics
}

// New checks the settings and makes a server. It does no I/O.
func New(config Config, deps Deps) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if deps.Intake == nil || deps.Output == nil || deps.Tasks == nil || deps.Logger == nil || deps.Now == nil || deps.Random == nil {
		return nil, errors.New("reward server: intake, output, tasks, logger, clock and random source are needed")
	}
	s := &Server{config: config, deps: deps, judge: deps.Judge}
	split := func() *rand.Rand { // each user gets its own source: a rand.Rand is not safe for concurrent use
		var seed [32]byte
		for i := range seed {
			seed[i] = byte(deps.Random.Uint32())
		}
		return rand.New(rand.NewChaCha8(seed))
	}
	if s.judge == nil {
		switch config.Judge {
		case JudgeLLM:
			judge, err := NewLLMJudge(config.LLM, split())
			if err != nil {
				return nil, err
			}
			s.judge = judge
		default:
			s.judge = NewRuleJudge()
		}
	}
	s.circuit = &circuit{limit: config.CircuitFailures, pause: config.CircuitPause, maxPause: config.CircuitMaxPause, rng: split()}
	s.ledger = newLedger(config, func(reason string, turns int) { s.metrics.drop(reason, turns) })
	var err error
	if s.metrics, err = newMetrics(deps.Registerer, s.ledger, s.circuit); err != nil {
		return nil, err
	}
	return s, nil
}

// Stats gives a snapshot.
func (s *Server) Stats() Stats {
	stats := s.metrics.snapshot()
	stats.Queued, stats.InFlight, stats.Labelled, stats.Failed = s.ledger.sizes()
	stats.JudgeDown = s.circuit.isOpen()
	return stats
}

// Run rebuilds the label table from history, then labels until ctx is done.
// Labels that are finished by then are still published, within the grace time. A judge
// that does not answer does not stop it. It returns nil after ctx is done, and
// an error only when history cannot be read. Call it once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.restore(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("read the labels published so far: %w", err)
	}
	out := make(chan forager.Annotation, s.config.MaxUnpublished)
	var publisher, producers sync.WaitGroup
	publisher.Go(func() { s.publishAll(ctx, out) })
	producers.Go(func() { s.check(ctx) })
	producers.Go(func() { s.read(ctx, out) })
	for range s.config.MaxInFlight {
		producers.Go(func() { s.work(ctx, out) })
	}
	producers.Wait()
	close(out)
	publisher.Wait()
	return nil
}

// restore enters the labels of history, so that nothing is paid for twice.
func (s *Server) restore(ctx context.Context) error {
	if s.deps.History == nil {
		return nil
	}
	err := s.deps.History.Each(ctx, func(a forager.Annotation) error {
		switch {
		case a.Source != s.config.Source || a.Key == "":
		case a.Value == nil:
			s.ledger.restore(a.Key, nil)
		case finite(*a.Value):
			s.ledger.restore(a.Key, &Verdict{Value: *a.Value, Rationale: a.Rationale})
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if _, _, labels, failures := s.ledger.sizes(); labels+failures > 0 {
		s.deps.Logger.Info("label table rebuilt", "labels", labels, "failed", failures)
	}
	return nil
}

// checkTimeout bounds the look at the judge at start.
const checkTimeout = 10 * time.Second

// check says once, at start, when the judge is not there.
func (s *Server) check(ctx context.Context) {
	judge, ok := s.judge.(checker)
	if !ok {
		return
	}
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := judge.Check(limited); err != nil && ctx.Err() == nil {
		s.deps.Logger.Warn("judge is not ready", "judge", s.judge.Name(), "error", err)
	}
}

// read takes in digests until ctx is done.
func (s *Server) read(ctx context.Context, out chan<- forager.Annotation) {
	var retry backoff
	warned := false
	for ctx.Err() == nil {
		digests, err := s.deps.Intake.Next(ctx, s.config.IntakeBatch)
		if err != nil {
			if ctx.Err() == nil && retry.first() {
				s.deps.Logger.Warn("cannot read turn digests, trying again", "error", err)
			}
			retry.wait(ctx)
			continue
		}
		retry = backoff{}
		for _, d := range digests {
			if err := s.accept(d, out); err != nil && !warned {
				warned = true
				s.deps.Logger.Warn("a turn cannot be labelled; further ones are only counted", "rollout", d.RolloutID, "turn", d.Turn, "error", err)
			}
		}
	}
}

// accept answers a digest from the label table, or lets its turn wait for the
// judge. An error says why the turn gets no label.
func (s *Server) accept(d forager.TurnDigest, out chan<- forager.Annotation) error {
	s.metrics.digest()
	if d.RolloutID == "" || d.TaskID == "" {
		s.metrics.drop(dropMalformed, 1)
		return errors.New("digest names no rollout or no task")
	}
	size := textBytes(d)
	if size > s.config.MaxDigestBytes {
		s.metrics.drop(dropTooLarge, 1)
		return forager.WithHint(fmt.Errorf("digest has %d bytes, at most %d are read", size, s.config.MaxDigestBytes), "raise rewardsrv.max_digest_bytes")
	}
	ref := turnRef{rolloutID: d.RolloutID, turn: d.Turn}
	key := labelKey(s.judge, d)
	known, seen := s.ledger.lookup(key, ref)
	if !seen {
		task, err := s.deps.Tasks.Task(d.TaskID)
		if err != nil {
			s.metrics.drop(dropUnknownTask, 1)
			return fmt.Errorf("find task %s: %w", d.TaskID, err)
		}
		known = s.ledger.add(Item{Key: key, Task: task, Question: d.Question, Query: d.Query, Passages: d.Passages}, size, ref)
	}
	if known.settled {
		s.metrics.cacheHit()
		var v *Verdict
		if !known.failed {
			v = &known.verdict
		}
		out <- s.annotation(key, ref, v, 0)
	}
	return nil
}

func textBytes(d forager.TurnDigest) int64 {
	n := len(d.RolloutID) + len(d.TaskID) + len(d.Question) + len(d.Query)
	for _, p := range d.Passages {
		n += len(p.ID) + len(p.Title) + len(p.Text)
	}
	return int64(n)
}

// work judges one step after another until ctx is done.
func (s *Server) work(ctx context.Context, out chan<- forager.Annotation) {
	for sleep(ctx, s.circuit.wait(s.deps.Now())) {
		item, ok := s.ledger.take(ctx)
		if !ok {
			return
		}
		if s.circuit.wait(s.deps.Now()) > 0 { // opened while this worker waited for a step
			s.ledger.giveUp(item.Key, false)
			continue
		}
		s.label(ctx, item, out)
	}
}

// label puts one step to the judge and settles it, or puts it back.
func (s *Server) label(ctx context.Context, item Item, out chan<- forager.Annotation) {
	start := s.deps.Now()
	verdict, err := s.judge.Label(ctx, item)
	took := s.deps.Now().Sub(start)
	if err == nil && !finite(verdict.Value) {
		err = fmt.Errorf("value %v: %w", verdict.Value, ErrUnusable)
	}
	switch {
	case err == nil:
		outcome := outcomeNotHelpful
		if verdict.Value > 0 {
			outcome = outcomeHelpful
		}
		s.metrics.judged(s.judge.Name(), outcome, took)
		s.reached()
		verdict.Rationale = redact(verdict.Rationale, item.Task)
		s.send(item.Key, s.ledger.label(item.Key, verdict), &verdict, took, out)
	case errors.Is(err, ErrUnusable):
		s.metrics.judged(s.judge.Name(), outcomeUnusable, took)
		s.reached()
		s.deps.Logger.Debug("step got no label", "key", item.Key, "task", item.Task.ID, "error", err)
		s.giveUp(item.Key, true, took, out)
	case ctx.Err() != nil: // stopping: nobody's fault
		s.ledger.giveUp(item.Key, false)
	default:
		s.metrics.judged(s.judge.Name(), outcomeError, took)
		open, opened := s.circuit.failure(s.deps.Now())
		if opened {
			s.deps.Logger.Warn("judge fails: pausing; learning goes on without its labels", "judge", s.judge.Name(), "error", err)
		}
		s.giveUp(item.Key, !open, took, out)
	}
}

func (s *Server) reached() {
	if s.circuit.success() {
		s.deps.Logger.Info("judge answers again", "judge", s.judge.Name())
	}
}

func (s *Server) giveUp(key string, blame bool, took time.Duration, out chan<- forager.Annotation) {
	if waiting, final := s.ledger.giveUp(key, blame); final {
		s.send(key, waiting, nil, took, out)
	}
}

// send hands the label of a key to the publisher, once for each waiting turn.
func (s *Server) send(key string, waiting []turnRef, v *Verdict, took time.Duration, out chan<- forager.Annotation) {
	for _, ref := range waiting {
		out <- s.annotation(key, ref, v, took) // the publisher reads until all producers have ended
	}
}

// annotation is the label of one turn; v is nil for a step that stays unlabelled.
func (s *Server) annotation(key string, ref turnRef, v *Verdict, took time.Duration) forager.Annotation {
	a := forager.Annotation{
		RolloutID: ref.rolloutID, Turn: ref.turn, Source: s.config.Source, Key: key,
		Judge: s.judge.Name(), Rubric: s.judge.Rubric(), Latency: took, Time: s.deps.Now(),
	}
	if v == nil {
		a.Rationale = "the judge gave no usable label"
		return a
	}
	value := v.Value
	a.Value, a.Rationale = &value, v.Rationale
	return a
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
