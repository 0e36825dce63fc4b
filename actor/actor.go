package actor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// Config is the settings of an actor.
type Config struct {
	// Groups is the number of groups played at once. More keep the policy's
	// batches full while other episodes wait for the retriever.
	Groups int `mapstructure:"groups"`
	// CreditWait bounds the first wait for a credit, after which the actor looks
	// again. The wait doubles while none comes.
	CreditWait time.Duration `mapstructure:"credit_wait"`
	// MaxWait bounds how far waits for credits and pauses after failures grow.
	MaxWait time.Duration `mapstructure:"max_wait"`
	// WeightsWait bounds how long a credit waits for the policy version at which it
	// was issued; then it is handed back. Playing it with older weights would let
	// rollouts be older than the learner's lag allows.
	WeightsWait time.Duration `mapstructure:"weights_wait"`
	// KeepAlive is the time between signs of life for a credit in progress. It
	// must be well below the bus's time to redelivery.
	KeepAlive time.Duration `mapstructure:"keep_alive"`
	// RetryWait is the pause before a credit is tried again after a failure, and
	// before a full stream is tried again. The actor's own pause doubles while it
	// goes on failing.
	RetryWait time.Duration `mapstructure:"retry_wait"`
	// DrainTimeout bounds how long groups in progress may finish when the actor
	// is told to stop; what is left is handed back.
	DrainTimeout time.Duration `mapstructure:"drain_timeout"`
}

// DefaultConfig suits the built-in policy on one core.
func DefaultConfig() Config {
	return Config{Groups: 6, CreditWait: 2 * time.Second, MaxWait: 30 * time.Second, WeightsWait: time.Minute, KeepAlive: 10 * time.Second, RetryWait: time.Second, DrainTimeout: 10 * time.Second}
}

// Validate reports the first setting out of range.
func (c Config) Validate() error {
	if c.Groups < 1 {
		return fmt.Errorf("groups is %d, want at least 1", c.Groups)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"credit_wait", c.CreditWait},
		{"weights_wait", c.WeightsWait},
		{"keep_alive", c.KeepAlive},
		{"retry_wait", c.RetryWait},
		{"drain_timeout", c.DrainTimeout},
	} {
		if d.value <= 0 {
			return fmt.Errorf("%s is %v, want more than 0", d.name, d.value)
		}
	}
	if least := max(c.CreditWait, c.RetryWait); c.MaxWait < least {
		return fmt.Errorf("max_wait is %v, want at least credit_wait and retry_wait, %v", c.MaxWait, least)
	}
	return nil
}

// Credits is where work comes from.
type Credits interface {
	// Next waits up to wait for a credit and returns nil when none came.
	Next(ctx context.Context, wait time.Duration) (Lease, error)
}

// Lease is a credit that this actor holds until it is done or handed back, or
// until it gives no sign of life for too long.
type Lease interface {
	Credit() forager.Credit
	KeepAlive() error
	// Done tells that the group is safe with the sink.
	Done() error
	// Return hands the credit to some actor after a pause.
	Return(pause time.Duration) error
}

// Sink takes finished groups.
type Sink interface {
	// Put returns when the group is durable; the same group may be put twice.
	// It returns forager.ErrFull to ask for a pause.
	Put(ctx context.Context, group forager.Group) error
}

// Digests takes what the reward server may label. It never blocks for long and
// may drop.
type Digests interface {
	Offer(ctx context.Context, digests []forager.TurnDigest) error
}

// Tasks finds a task by id, or returns forager.ErrNotFound.
type Tasks interface {
	Task(id string) (forager.Task, error)
}

// Deps is what an Actor needs from outside; all fields are required but Tracer.
type Deps struct {
	Player   *Player
	Played   *PlayedVersion
	Credits  Credits
	Sink     Sink
	Digests  Digests
	Tasks    Tasks
	Logger   *slog.Logger
	Registry prometheus.Registerer
	Tracer   trace.Tracer // nil traces nothing
}

// Actor plays groups for as long as there are credits.
type Actor struct {
	cfg     Config
	deps    Deps
	metrics *metrics
}

// New prepares an actor.
func New(cfg Config, deps Deps) (*Actor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("actor: %w", err)
	}
	deps.Tracer = spans.TracerOrNone(deps.Tracer)
	return &Actor{cfg: cfg, deps: deps, metrics: newMetrics(deps.Registry)}, nil
}

// Run plays until ctx is done. Groups in progress then have DrainTimeout to
// finish; the rest is handed back. It returns nil after a drain.
func (a *Actor) Run(ctx context.Context) error {
	play, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(a.cfg.DrainTimeout, cancel)
		context.AfterFunc(play, func() { timer.Stop() })
	})
	defer stop()
	var wait sync.WaitGroup
	for range a.cfg.Groups {
		wait.Go(func() {
			idle := backoff{first: a.cfg.CreditWait, most: a.cfg.MaxWait}
			failing := backoff{first: a.cfg.RetryWait, most: a.cfg.MaxWait}
			for ctx.Err() == nil {
				a.next(ctx, play, &idle, &failing)
			}
		})
	}
	wait.Wait()
	return nil
}

// next takes one credit and plays it. Taking ends with ctx, playing with play.
func (a *Actor) next(ctx, play context.Context, idle, failing *backoff) {
	lease, err := a.deps.Credits.Next(ctx, idle.next())
	if err != nil {
		if ctx.Err() == nil {
			retry := failing.next()
			a.deps.Logger.Warn("no credit", "error", err, "retry", retry)
			pause(ctx, retry)
		}
		return
	}
	if lease == nil {
		return
	}
	idle.reset()
	err = a.play(ctx, play, lease)
	if err == nil {
		failing.reset()
		return
	}
	a.metrics.failures.Inc()
	a.deps.Logger.Warn("credit handed back", "credit", lease.Credit().Index, "task", lease.Credit().TaskID, "error", err)
	delay := a.cfg.RetryWait
	if ctx.Err() != nil {
		delay = 0 // it is the actor that stops: another may begin at once
	}
	if err := lease.Return(delay); err != nil {
		a.deps.Logger.Warn("credit could not be handed back and will be redelivered", "credit", lease.Credit().Index, "error", err)
	}
	pause(ctx, failing.next())
}

// play turns one credit into a durable group. Waiting for weights ends with
// running, all else with ctx.
func (a *Actor) play(running, ctx context.Context, lease Lease) (err error) {
	credit := lease.Credit()
	ctx, span := a.deps.Tracer.Start(spans.At(ctx, credit.Trace), "rollout.group",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String(forager.AttributeRun, credit.Run),
			attribute.Int64(forager.AttributeGroup, int64(credit.Index)),
			attribute.String(forager.AttributeTask, credit.TaskID),
			attribute.Int(forager.AttributeSize, credit.GroupSize),
			attribute.Int64(forager.AttributeVersion, int64(credit.Version)),
			attribute.Int64(forager.AttributeEpoch, int64(credit.Epoch)),
			attribute.String(forager.AttributeActor, a.deps.Player.name),
		))
	defer func() { spans.End(span, err) }()

	alive, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	wait.Go(func() { a.keepAlive(alive, lease) })

	task, err := a.deps.Tasks.Task(credit.TaskID)
	if err != nil {
		return fmt.Errorf("credit %d: task %s: %w", credit.Index, credit.TaskID, err)
	}
	if err := a.awaitWeights(running, credit.Version); err != nil {
		return fmt.Errorf("credit %d: %w", credit.Index, err)
	}
	span.AddEvent("the weights are there")
	start := time.Now()
	group, digests, err := a.deps.Player.PlayGroup(ctx, credit, task)
	if err != nil {
		return err
	}
	a.metrics.played(group, time.Since(start))
	if err := a.publish(ctx, group); err != nil {
		return fmt.Errorf("publish group %d: %w", credit.Index, err)
	}
	// What was promised from here on; bench/chaos looks for it in replay.
	a.deps.Logger.Debug("group is stored", "credit", credit.Index)
	if err := a.deps.Digests.Offer(ctx, digests); err != nil {
		a.deps.Logger.Debug("digests dropped", "credit", credit.Index, "error", err)
	}
	if err := lease.Done(); err != nil {
		a.deps.Logger.Warn("credit may be played again", "credit", credit.Index, "error", err)
	}
	return nil
}

// awaitWeights waits until a policy version is played.
func (a *Actor) awaitWeights(ctx context.Context, version forager.Version) error {
	start := time.Now()
	defer func() { a.metrics.waited.Add(time.Since(start).Seconds()) }()
	bounded, cancel := context.WithTimeout(ctx, a.cfg.WeightsWait)
	defer cancel()
	return a.deps.Played.Await(bounded, version)
}

// publish hands a group to the sink, and pauses while that is full.
func (a *Actor) publish(ctx context.Context, group forager.Group) (err error) {
	ctx, span := a.deps.Tracer.Start(ctx, "batch.publish", trace.WithSpanKind(trace.SpanKindProducer))
	defer func() { spans.End(span, err) }()
	for {
		err := a.deps.Sink.Put(ctx, group)
		if !errors.Is(err, forager.ErrFull) {
			return err
		}
		a.metrics.paused.Inc()
		span.AddEvent("pause: the stream is full")
		if !pause(ctx, a.cfg.RetryWait) {
			return ctx.Err()
		}
	}
}

// keepAlive shows signs of life for a credit until ctx is done.
func (a *Actor) keepAlive(ctx context.Context, lease Lease) {
	ticker := time.NewTicker(a.cfg.KeepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := lease.KeepAlive(); err != nil {
				a.deps.Logger.Warn("sign of life for a credit failed", "credit", lease.Credit().Index, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// pause waits and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
