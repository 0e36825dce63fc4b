package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
)

// Intake is where turn digests come from.
type Intake interface {
	// Next gives digests, about limit of them. It waits until there is one, or for
	// a bounded time, after which it may give none. Digests that were given are
	// not given again, to nobody. Those of one rollout come together.
	Next(ctx context.Context, limit int) ([]forager.TurnDigest, error)
}

// Labels is the stream of all labels of a run, by all its reward servers: the
// source of truth about them. Messages have rising sequence numbers from 1.
type Labels interface {
	// Publish returns when the annotations are durable. After an error the same
	// annotations are published again, so a turn may get a label twice.
	Publish(ctx context.Context, annotations []forager.Annotation) error
	// Last is the sequence of the newest message, 0 for none.
	Last(ctx context.Context) (uint64, error)
	// Replay calls fn for every message from a sequence on, oldest first, and
	// returns when there are no more. It stops at the first error of fn.
	Replay(ctx context.Context, from uint64, fn func(sequence uint64, annotations []forager.Annotation) error) error
	// Follow is Replay that goes on with new messages until ctx is done (nil).
	Follow(ctx context.Context, from uint64, fn func(sequence uint64, annotations []forager.Annotation) error) error
}

// Claims lets one of several servers have a key. A claim that was won stays until
// it is released or for minutes; whether its holder is dead before that, the
// others judge by the time for which they see one revision of it.
type Claims interface {
	// Claim takes a key that nobody holds (over 0), or the claim on it that has
	// revision over. It gives the revision of the claim that stands then, 0 when
	// there is none.
	Claim(ctx context.Context, key string, over uint64) (revision uint64, won bool, err error)
	// Release gives up a claim that was won with this revision.
	Release(ctx context.Context, key string, revision uint64) error
}

// Tasks finds tasks by id.
type Tasks interface {
	// Task gives the task, or an error that wraps forager.ErrNotFound.
	Task(id string) (forager.Task, error)
}

// Deps is what the server works with.
type Deps struct {
	Intake Intake
	Labels Labels
	Tasks  Tasks
	Index  *labelstore.Store // of Labels; the caller closes it after Run
	Claims Claims            // nil: no other server labels this run
	Models Models            // nil: no reward model is published
	Judges []Judge           // nil: those that Config.Judge names

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no Prometheus metrics
	Tracer     trace.Tracer          // nil: nothing is traced
	Now        func() time.Time      // with a monotonic reading: leases are measured with it
	Random     *rand.Rand            // for fences, label words and jitter; ought to be unpredictable
}

// Server labels search steps: each distinct step once, newest first, in
// bounded memory.
type Server struct {
	config  Config
	deps    Deps
	judges  []judgeState
	ledger  *ledger
	slots   *slots
	pause   pause
	metrics *metrics
	distil  *distiller // nil: no reward model is trained
}

// judgeState is a judge and what pairs are drawn from for it.
type judgeState struct {
	judge Judge
	pool  *pool // of the goroutine that reads digests
}

// New checks the settings and makes a server. It does no I/O but to read rubrics.
func New(config Config, deps Deps) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if deps.Intake == nil || deps.Labels == nil || deps.Tasks == nil || deps.Index == nil || deps.Logger == nil || deps.Now == nil || deps.Random == nil {
		return nil, errors.New("reward server: intake, labels, tasks, index, logger, clock and random source are needed")
	}
	deps.Tracer = spans.TracerOrNone(deps.Tracer)
	s := &Server{config: config, deps: deps}
	judges := deps.Judges
	if judges == nil {
		var err error
		if judges, err = NewJudges(config, deps); err != nil {
			return nil, err
		}
	}
	for _, j := range judges {
		s.judges = append(s.judges, judgeState{j, newPool(split(deps.Random))})
	}
	s.slots = newSlots(s.capacity)
	var err error
	if s.ledger, err = newLedger(config, s.slots.most, func(reason string, turns int) { s.metrics.drop(reason, turns) }, deps.Now); err != nil {
		return nil, fmt.Errorf("reward server: %w", err)
	}
	if s.distil, err = newDistiller(config, judges, deps); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(deps.Registerer, s.ledger, &s.pause); err != nil {
		return nil, err
	}
	return s, nil
}

// split makes a random source of its own for one user: a rand.Rand is not safe
// for concurrent use.
func split(from *rand.Rand) *rand.Rand {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(from.Uint32())
	}
	return rand.New(rand.NewChaCha8(seed))
}

// limiter is a judge that says how many calls it takes at one time.
type limiter interface {
	Capacity() int
}

// capacity is how many judge calls may be under way here.
func (s *Server) capacity() int {
	n := s.config.MaxInFlight
	for _, j := range s.judges {
		if l, ok := j.judge.(limiter); ok {
			n = min(n, max(1, l.Capacity()))
		}
	}
	return n
}

// Stats gives a snapshot.
func (s *Server) Stats() Stats {
	stats := s.metrics.snapshot()
	z := s.ledger.sizes()
	stats.Queued, stats.InFlight, stats.Elsewhere = z.queued, z.inFlight, z.elsewhere
	stats.JudgeDown = s.pause.isDown()
	return stats
}

// Run brings the label index up to the stream, then labels until ctx is done.
// Labels that are finished by then are still published, within the grace time. A
// judge that does not answer does not stop it. It returns nil after ctx is done,
// and an error only when the labels published so far cannot be read. Call it once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.catchUp(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("read the labels published so far: %w", err)
	}
	out := make(chan forager.Annotation, s.config.MaxUnpublished)
	var publisher, others sync.WaitGroup
	publisher.Go(func() { s.publishAll(ctx, out) })
	others.Go(func() { s.check(ctx) })
	others.Go(func() { s.read(ctx, out) })
	others.Go(func() { s.follow(ctx, out) })
	others.Go(func() { s.expire(ctx) })
	for _, j := range s.judges {
		if r, ok := j.judge.(runner); ok {
			others.Go(func() { r.Run(ctx) })
		}
	}
	if s.distil != nil {
		others.Go(func() { s.distil.run(ctx) })
	}
	for range s.config.MaxInFlight + s.config.MaxInFlight/4 { // some get ready ahead, see slots
		others.Go(func() { s.work(ctx, out) })
	}
	others.Wait()
	close(out)
	publisher.Wait()
	stats := s.Stats()
	s.deps.Logger.Info("reward server stopped", "labels_wanted", stats.Wanted, "judge_calls", stats.Calls(),
		"hit_rate", stats.HitRate(), "published", stats.Published)
	return nil
}

// checkTimeout bounds the look at a judge at start.
const checkTimeout = 10 * time.Second

// check says once, at start, when a judge is not there.
func (s *Server) check(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	told := map[string]bool{} // several rubrics share one judge
	for _, j := range s.judges {
		name := j.judge.Current().Judge()
		c, ok := j.judge.(checker)
		if !ok || told[name] {
			continue
		}
		told[name] = true
		if err := c.Check(limited); err != nil && ctx.Err() == nil {
			s.deps.Logger.Warn("judge is not ready; the server goes on without it and asks again", "judge", name, "error", err)
		}
	}
}
