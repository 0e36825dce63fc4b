//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "run the tests that measure for minutes")

const (
	leaseTTL  = 5 * time.Second // the default
	takenOver = "took over the lease"
	standsBy  = "standing by"
	leaseLost = "is lost, this learner stands by"
)

// apart is a run with every role in a process of its own.
type apart struct {
	t      *testing.T
	dir    string
	url    string
	common []string
}

// spread starts all roles but learners and actors.
func spread(t *testing.T, id string, steps int, settings ...string) *apart {
	t.Helper()
	a := startBus(t, id, steps, settings...)
	for _, role := range []string{"cluster", "replay", "retriever"} {
		a.role(role, role)
	}
	return a
}

// startBus starts the bus alone.
func startBus(t *testing.T, id string, steps int, settings ...string) *apart {
	t.Helper()
	root := t.TempDir()
	a := &apart{t: t, dir: filepath.Join(root, id)}
	a.common = slices.Concat(small, []string{
		"--set", "run.root=" + root, "--run", id, "--set", fmt.Sprintf("learner.steps=%d", steps),
		"--set", "actor.groups=1", "--set", "judge.judge=none",
	}, settings)
	nats := start(t, "nats", "nats", a.common, "--listen", "127.0.0.1:0")
	line := nats.awaitLine("NATS with JetStream at ", 30*time.Second)
	a.url = line[strings.Index(line, "nats://"):]
	return a
}

func (a *apart) role(name, role string, settings ...string) *process {
	a.t.Helper()
	return start(a.t, name, role, a.common, "--nats", a.url, settings)
}

// standby starts a learner while another has the lease.
func (a *apart) standby(name string) *process {
	a.t.Helper()
	p := a.role(name, "learner")
	p.awaitLine(standsBy, time.Minute)
	return p
}

// steps is how many are reported.
func (a *apart) steps() int { return len(rows(a.t, a.dir)) }

// progress waits until n more steps are reported than now, and tells how long
// that took.
func (a *apart) progress(p *process, n int, limit time.Duration) time.Duration {
	a.t.Helper()
	begun, before := time.Now(), a.steps()
	p.await(fmt.Sprintf("%d more steps", n), limit, func() bool { return a.steps() >= before+n })
	return time.Since(begun)
}

// TestFailover: learners die, are frozen and are told to stop, one after another.
// Somebody else always goes on, who comes back does no harm, and when the run is
// finished, everybody ends.
func TestFailover(t *testing.T) {
	const steps = 25
	shared := t.TempDir() // by the actors, as on one host
	a := spread(t, "failover", steps, "--set", "actor.weights_dir="+shared)
	a.role("actor 1", "actor")
	a.role("actor 2", "actor")
	killed := a.role("learner 1", "learner")
	killed.await("two steps", 2*time.Minute, func() bool { return a.steps() >= 2 })

	frozen := a.standby("learner 2")
	killed.kill()
	t.Logf("after kill -9: the next step came after %v", a.progress(frozen, 1, 20*time.Second).Round(time.Millisecond))
	frozen.awaitLine(takenOver, time.Second)

	stopped := a.standby("learner 3")
	frozen.signal(syscall.SIGSTOP)
	stopped.awaitLine(takenOver, 20*time.Second)
	t.Logf("after the freeze: the next step came %v after the take-over", a.progress(stopped, 1, 20*time.Second).Round(time.Millisecond))
	frozen.signal(syscall.SIGCONT)
	frozen.awaitLine(leaseLost, 20*time.Second)
	a.progress(stopped, 2, 20*time.Second)

	stopped.signal(syscall.SIGTERM)
	stopped.succeed(20 * time.Second)
	begun := time.Now()
	frozen.awaitLine(takenOver+" with epoch 4", 20*time.Second)
	if took := time.Since(begun); took > leaseTTL-time.Second {
		t.Errorf("the lease of a learner that stopped in order was free after %v only", took)
	}

	idle := a.standby("learner 4")
	frozen.succeed(3 * time.Minute)
	idle.succeed(30 * time.Second)
	idle.awaitLine("the run is finished", time.Second)
	checkRollouts(t, a.dir, checkSteps(t, a.dir, steps))
	kept, err := filepath.Glob(filepath.Join(shared, "failover", "weights-*"))
	if err != nil || len(kept) < 1 || len(kept) > 2 {
		t.Errorf("the actors share %v, want the newest one or two versions (%v)", kept, err)
	}
}

// TestFailoverTrials kills the learner that has the lease, again and again, and
// measures how long it takes until the next version is published:
//
//	go test -tags e2e -run FailoverTrials ./e2e -v -full    # 20 trials, held to the target
func TestFailoverTrials(t *testing.T) {
	const target = 10 * time.Second
	trials := 1
	if *full {
		trials = 20
	}
	a := spread(t, "trials", 1_000_000)
	a.role("actor 1", "actor")
	a.role("actor 2", "actor")
	holder := a.role("learner 0", "learner")
	holder.await("two steps", 2*time.Minute, func() bool { return a.steps() >= 2 })
	var times []time.Duration
	for n := range trials {
		standby := a.standby(fmt.Sprintf("learner %d", n+1))
		a.progress(holder, 2, time.Minute)
		time.Sleep(time.Duration(n) * leaseTTL / 3 / time.Duration(trials)) // all moments between two renewals
		holder.kill()
		begun, before := time.Now(), a.steps()
		standby.awaitLine(takenOver, time.Minute)
		leased := time.Since(begun)
		standby.await("a step", time.Minute, func() bool { return a.steps() > before })
		times = append(times, time.Since(begun))
		t.Logf("trial %d: %.2f s, of these %.2f s until it had the lease", n+1, times[n].Seconds(), leased.Seconds())
		if times[n] > target {
			t.Logf("what the learner that took so long says:\n%s", strings.Join(standby.output(), "\n"))
		}
		holder = standby
	}
	slices.Sort(times)
	median := (times[(trials-1)/2] + times[trials/2]) / 2
	t.Logf("from kill -9 to the next published version, %d trials: min %.2f s, median %.2f s, max %.2f s",
		trials, times[0].Seconds(), median.Seconds(), times[trials-1].Seconds())
	if *full && median > target { // a single one may meet a busy machine
		t.Errorf("the median is %v, want at most %v", median, target)
	}
	checkSteps(t, a.dir, a.steps())
}

// TestActorDrains: an actor that is told to stop hands back what it cannot finish,
// and others play it without waiting until the bus misses a sign of life.
func TestActorDrains(t *testing.T) {
	const steps, ackWait = 12, 10 * time.Minute
	a := spread(t, "drains", steps, "--set", fmt.Sprintf("bus.ack_wait=%s", ackWait), "--set", "learner.stall_timeout=10m",
		"--set", "learner.lag=8") // so that there is always more to play
	leaving := a.role("actor 1", "actor", "--set", "actor.drain_timeout=1ms", "--set", "actor.groups=4")
	learner := a.role("learner", "learner")
	learner.await("two steps", 2*time.Minute, func() bool { return a.steps() >= 2 })
	leaving.signal(syscall.SIGTERM)
	leaving.succeed(20 * time.Second)
	leaving.awaitLine("credit handed back", time.Second)
	if n := a.steps(); n >= steps {
		t.Fatalf("the actor left at step %d, too late to be missed", n)
	}
	a.role("actor 2", "actor")
	learner.succeed(3 * time.Minute)
	checkRollouts(t, a.dir, checkSteps(t, a.dir, steps))
}

// TestFrozenTrials freezes the learner that has the lease at random moments for
// longer than the lease, again and again:
//
//	go test -tags e2e -run FrozenTrials ./e2e -v -full    # 10 times
func TestFrozenTrials(t *testing.T) {
	trials := 1
	if *full {
		trials = 10
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed of the moments: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	a := spread(t, "frozen", 1_000_000, "--set", "cluster.lease_ttl=2s")
	a.role("actor 1", "actor")
	a.role("actor 2", "actor")
	holder := a.role("learner 1", "learner")
	holder.await("two steps", 2*time.Minute, func() bool { return a.steps() >= 2 })
	other := a.standby("learner 2")
	for n := range trials {
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		at := a.steps()
		holder.signal(syscall.SIGSTOP)
		epoch := fmt.Sprintf("%s with epoch %d", takenOver, n+2)
		other.awaitLine(epoch, 20*time.Second)
		a.progress(other, 1, 20*time.Second)
		holder.signal(syscall.SIGCONT)
		holder.awaitLine(fmt.Sprintf("the lease of epoch %d is lost", n+1), 20*time.Second)
		t.Logf("frozen at step %d, the other was at step %d when it woke up", at, a.steps())
		holder, other = other, holder
	}
	for _, learner := range []*process{other, holder} { // the one that stands by first
		learner.signal(syscall.SIGTERM)
		learner.succeed(30 * time.Second)
	}
	checkRollouts(t, a.dir, checkSteps(t, a.dir, a.steps()))
}
