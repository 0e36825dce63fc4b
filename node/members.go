package node

import (
	"context"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/cluster"
)

// programVersion is the version of this program: that of its module, or else the
// revision that it was built from.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, revision, changed := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	if revision != "" && (version == "" || version == "(devel)") {
		return revision + changed
	}
	if version == "" {
		return "unknown"
	}
	return version
}

// startRoster announces this process to the others, from now until it ends.
func (p *process) startRoster(ctx context.Context) {
	p.roster.Tell(p.condition.tell)
	p.roster.Tell(p.learning.tell)
	p.roster.Tell(p.policyFact(p.learning.published))
	p.group.start(ctx, "roster", p.roster.Run)
}

// newRoster makes the roster of a process that has its bus.
func (p *process) newRoster() *cluster.Roster {
	return cluster.NewRoster(p.bus, cluster.Member{
		Name: p.name, Host: p.host, PID: os.Getpid(), Version: programVersion(), Started: p.clock().UTC(),
	}, p.logger)
}

// policyFact tells the policy version that a role of this process plays or has
// published, and for how long. known is false before the first.
func (p *process) policyFact(version func() (v forager.Version, known bool)) func(*cluster.Member) {
	var last forager.Version
	var since time.Time
	return func(m *cluster.Member) {
		v, known := version()
		if !known {
			return
		}
		now := p.clock()
		if since.IsZero() || v != last {
			last, since = v, now
		}
		m.Policy, m.PolicySeconds = &v, now.Sub(since).Seconds()
	}
}

// learning is how far the learner of this process is, while it has the lease.
type learning struct {
	mu      sync.Mutex
	epoch   uint64 // 0: no lease
	step    uint64
	version forager.Version
}

// begin says that the learner has the lease, until the returned function is called.
func (l *learning) begin(epoch uint64) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch, l.step, l.version = epoch, 0, 0
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.epoch = 0
	}
}

// note says that a step has ended.
func (l *learning) note(step uint64, version forager.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step, l.version = step, version
}

func (l *learning) read() (epoch, step uint64, version forager.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.step, l.version
}

// published is the version after the newest step of a learner that has the lease.
func (l *learning) published() (forager.Version, bool) {
	epoch, step, version := l.read()
	return version, epoch > 0 && step > 0
}

func (l *learning) tell(m *cluster.Member) { m.Epoch, m.Step, _ = l.read() }

// countedCredits counts the credits that the actors of this process hold.
type countedCredits struct {
	actor.Credits
	held *heldCredits
}

// heldCredits is how many credits are held, and since when none is.
type heldCredits struct {
	clock func() time.Time

	mu    sync.Mutex
	count int
	idle  time.Time
}

func newHeldCredits(clock func() time.Time) *heldCredits {
	return &heldCredits{clock: clock, idle: clock()}
}

// Next implements actor.Credits.
func (c countedCredits) Next(ctx context.Context, limit time.Duration) (actor.Lease, error) {
	lease, err := c.Credits.Next(ctx, limit)
	if lease == nil || err != nil {
		return lease, err
	}
	c.held.add(1)
	return &countedLease{Lease: lease, over: sync.OnceFunc(func() { c.held.add(-1) })}, nil
}

// countedLease is counted until it is done or handed back.
type countedLease struct {
	actor.Lease
	over func()
}

func (l *countedLease) Done() error {
	l.over()
	return l.Lease.Done()
}

func (l *countedLease) Return(pause time.Duration) error {
	l.over()
	return l.Lease.Return(pause)
}

func (h *heldCredits) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count += n; h.count == 0 {
		h.idle = h.clock()
	}
}

// tell fills in a Member's credits; an actor without any waits for some.
func (h *heldCredits) tell(m *cluster.Member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.Credits = h.count
	if h.count == 0 {
		m.Waits = append(m.Waits, cluster.Wait{Role: forager.RoleActor, What: waitCredits, Seconds: h.clock().Sub(h.idle).Seconds()})
	}
}
