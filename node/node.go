package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/rundir"
	"github.com/forager-rl/forager/security"
	"github.com/forager-rl/forager/tracing"
)

// StepUpdate tells a person how training goes.
type StepUpdate struct {
	learner.StepMetrics
	Steps     uint64        // of the run
	Limit     time.Duration // of the run; 0 means none
	Remaining time.Duration // estimated
}

// Observer is how a process shows what it does. All fields may be nil.
type Observer struct {
	Step   func(StepUpdate)
	Phase  func(name string, done, total int) // long work other than steps
	Notice func(text string)                  // one line for a person
}

func (o Observer) step(u StepUpdate) {
	if o.Step != nil {
		o.Step(u)
	}
}

func (o Observer) phase(name string, done, total int) {
	if o.Phase != nil {
		o.Phase(name, done, total)
	}
}

func (o Observer) notice(format string, args ...any) {
	if o.Notice != nil {
		o.Notice(fmt.Sprintf(format, args...))
	}
}

// process is one running process: what its roles share.
type process struct {
	cfg      Config
	run      string
	dir      *rundir.Dir
	logger   *slog.Logger
	observer Observer
	registry *prometheus.Registry
	clock    func() time.Time
	host     string // this machine
	name     string // of this process among others: host and process id

	roles       []forager.Role        // "forager train" plays all, and names none
	credentials *security.Credentials // nil without any
	unreadable  unreadable

	group     *group
	condition *condition
	learning  *learning
	signals   *creditSignal
	bus       *bus.Bus
	tracing   *tracing.Tracing
	cluster   *cluster.Client
	roster    *cluster.Roster
	tasks     *dataset
}

// newProcess makes a process that plays some roles, with credentials of one of
// them. Without roles it is for "forager train", whose servers are all on loopback.
func newProcess(cfg Config, dir *rundir.Dir, logger *slog.Logger, observer Observer, roles ...forager.Role) (*process, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this machine: %w", err)
	}
	var credentials *security.Credentials
	if len(roles) > 0 {
		if credentials, err = loadCredentials(cfg.Security, logger, roles...); err != nil {
			return nil, err
		}
	}
	cfg.Trainer = cfg.trainer(cfg.Run.Seed)
	if cfg.Episode.Temperature > 0 {
		cfg.Trainer.Temperature = cfg.Episode.Temperature
	}
	registry := prometheus.NewRegistry()
	p := &process{
		cfg: cfg, run: dir.ID(), dir: dir, logger: logger, observer: observer, registry: registry, unreadable: newUnreadable(registry, logger),
		roles: roles, credentials: credentials, clock: time.Now, host: host, name: fmt.Sprintf("%s-%d", host, os.Getpid()),
		group: newGroup(logger, cfg.Admin.StopTimeout), condition: newCondition(time.Now), learning: &learning{},
	}
	p.signals = &creditSignal{process: p}
	p.registry.MustRegister(p.signals, policyGauge{forager.RoleLearner, p.learning.published})
	return p, nil
}

// openBus joins the bus; with embedded it carries one, whose store lies in the
// run directory. Processes start in any order: one that joins waits as long as a
// role may take to get ready.
func (p *process) openBus(ctx context.Context, embedded bool) error {
	cfg := p.cfg.Bus
	cfg.Run, cfg.AllowPlain = p.run, p.cfg.Security.AllowPlain
	cfg.Provision = embedded || slices.Contains(p.roles, forager.RoleCluster)
	if embedded {
		cfg.URL, cfg.StoreDir = "", storeFolder(p.dir)
	} else {
		cfg.ConnectTimeout = max(cfg.ConnectTimeout, p.cfg.Admin.StartTimeout)
	}
	secureBus(&cfg, p.credentials, embedded)
	b, err := bus.Open(ctx, cfg, p.logger)
	if err != nil {
		return err
	}
	if p.tracing, err = p.openTracing(); err != nil {
		return errors.Join(err, b.Close())
	}
	p.bus, p.cluster = b, clusterClient(b)
	p.roster = p.newRoster()
	return nil
}

// close ends the roles, then the bus, then traces. From its beginning on nobody finds the
// services of this process.
func (p *process) close() error {
	if p.bus == nil {
		return nil
	}
	p.roster.Tell(func(m *cluster.Member) { clear(m.Addresses) })
	p.group.stop()
	err := p.bus.Close()
	p.tracing.Close()
	return err
}

// openTracing begins to send the spans of this process, if it is to.
func (p *process) openTracing() (*tracing.Tracing, error) {
	service := "forager" // plays all roles
	for _, role := range p.roles {
		service += "-" + string(role)
	}
	return tracing.Open(p.cfg.Tracing, tracing.Deps{
		Service: service, Instance: p.name, Version: programVersion(), Always: []string{learner.SpanStep},
		Logger: p.logger, Registerer: p.registry,
	})
}

// tracer makes the spans of a package of this module.
func (p *process) tracer(name string) trace.Tracer {
	return p.tracing.Tracer("github.com/forager-rl/forager/" + name)
}

// dataset reads the tasks once.
func (p *process) dataset() (*dataset, error) {
	if p.tasks == nil {
		tasks, err := loadTasks(&p.cfg)
		if err != nil {
			return nil, err
		}
		p.tasks = tasks
	}
	return p.tasks, nil
}

// unpredictable gives a random source for what must not be guessed.
func unpredictable() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

// startRole starts one role and waits until it can be used.
func (p *process) startRole(ctx context.Context, role forager.Role) error {
	start := map[forager.Role]func(context.Context) error{
		forager.RoleCluster:      p.startCluster,
		forager.RoleReplay:       p.startReplay,
		forager.RoleRewardServer: p.startRewardServer,
		forager.RoleRetriever:    p.startRetriever,
		forager.RoleActor:        p.startActors,
	}[role]
	if start == nil {
		return fmt.Errorf("unknown role %q", role)
	}
	begun := p.clock()
	started := p.condition.wait(role, waitStart)
	defer started()
	if err := start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", role, err)
	}
	if role != forager.RoleActor { // it is up once it has weights and a retriever
		p.condition.rise(role)
	}
	p.logger.Info("role is up", "role", role, "took", p.clock().Sub(begun).Round(time.Millisecond))
	return nil
}

// RoleOptions says how to run roles in a process of their own.
type RoleOptions struct {
	Roles []forager.Role
	// Dir is the run directory; roles on one machine may share it. It is made
	// when absent, and its last element is the run id.
	Dir    string
	Logger *slog.Logger
	Observer
	// Stop asks for an orderly end; cancelling the context for a prompt one.
	Stop <-chan struct{}
}

// RunRoles runs roles in this process until it is told to stop or one of them
// fails. All but the nats role need a bus under Config.Bus.URL. A learner stands
// by while another has the lease, and ends the process when the run is finished.
func RunRoles(ctx context.Context, cfg Config, o RoleOptions) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if slices.Contains(o.Roles, forager.RoleActor) || slices.Contains(o.Roles, forager.RoleLearner) {
		if err := cfg.validateTraining(); err != nil {
			return err
		}
	}
	if o.Dir == "" {
		return forager.WithHint(errors.New("no directory for the role's state"), "name the run with --run ID or its folder with --dir runs/ID")
	}
	if cfg.Bus.URL == "" && !slices.Contains(o.Roles, forager.RoleNATS) {
		return forager.WithHint(errors.New("no NATS server is named"), "give its address with --nats nats://host:4222, or start one with: forager nats")
	}
	dir, err := openOrCreate(o.Dir)
	if err != nil {
		return err
	}
	ctx, cancel := stopContext(ctx, o.Stop)
	defer cancel()

	embedded, learns := false, false
	for _, role := range o.Roles {
		if stateful(role) {
			unlock, err := dir.Lock(string(role))
			if err != nil {
				return err
			}
			defer func() { _ = unlock() }()
		}
		embedded = embedded || role == forager.RoleNATS
		learns = learns || role == forager.RoleLearner
	}
	p, err := newProcess(cfg, dir, o.Logger, o.Observer, o.Roles...)
	if err != nil {
		return err
	}
	if err := p.openBus(ctx, embedded); err != nil {
		return err
	}
	// Roles outlive the signal to stop, so that they end in order.
	running := context.WithoutCancel(ctx)
	err = p.play(ctx, running, o.Roles, learns)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = nil
	}
	return errors.Join(err, p.close())
}

// stopContext is a context that ends when stop is closed, ctx is done, or it is
// cancelled.
func stopContext(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-stop:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// stateful roles own files; two processes must not.
func stateful(r forager.Role) bool {
	switch r {
	case forager.RoleNATS, forager.RoleCluster, forager.RoleReplay:
		return true
	}
	return false // learners have the lease
}

// play starts the roles and waits for the end.
func (p *process) play(ctx, running context.Context, roles []forager.Role, learns bool) error {
	p.condition.expect(roles...)
	if err := p.startAdmin(running); err != nil {
		return err
	}
	p.startRoster(running)
	var names []string
	for _, role := range roles {
		names = append(names, string(role))
		switch role {
		case forager.RoleNATS:
			p.condition.rise(role)
			p.observer.notice("NATS with JetStream at %s", p.bus.URL())
		case forager.RoleLearner:
		default:
			if err := p.startRole(running, role); err != nil {
				return err
			}
		}
	}
	p.observer.notice("%s ready (run %s)", strings.Join(names, ", "), p.run)
	if !learns {
		select {
		case <-ctx.Done():
			return nil
		case err := <-p.group.failed:
			return err
		}
	}
	finished, err := p.learn(ctx, nil)
	if finished {
		p.observer.notice("the run is finished")
	}
	return err
}

// openOrCreate finds or makes a run directory. Several processes may do so at
// the same moment.
func openOrCreate(path string) (*rundir.Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if dir, err := rundir.Open(abs); err == nil {
		return dir, nil
	}
	dir, err := rundir.Create(filepath.Dir(abs), filepath.Base(abs))
	if errors.Is(err, forager.ErrInUse) {
		return rundir.Open(abs)
	}
	return dir, err
}
