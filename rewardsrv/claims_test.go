package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// bucket is the claims of a run in memory.
type bucket struct {
	mu       sync.Mutex
	revision uint64
	held     map[string]uint64
	holder   map[string]string
}

func newBucket() *bucket { return &bucket{held: map[string]uint64{}, holder: map[string]string{}} }

// of is the bucket as one server sees it.
func (b *bucket) of(name string) Claims { return claimant{b, name} }

type claimant struct {
	*bucket
	name string
}

func (c claimant) Claim(_ context.Context, key string, over uint64) (uint64, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if standing := c.held[key]; standing != over {
		return standing, standing != 0 && c.holder[key] == c.name, nil
	}
	c.revision++
	c.held[key], c.holder[key] = c.revision, c.name
	return c.revision, true, nil
}

func (c claimant) Release(_ context.Context, key string, revision uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[key] == revision {
		delete(c.held, key)
	}
	return nil
}

// mortal is what a server works with until it is killed: nothing gets out of it
// after that, neither labels nor claims.
type mortal struct {
	Labels
	Claims
	dead atomic.Bool
}

var errDead = errors.New("killed")

func (m *mortal) Publish(ctx context.Context, list []forager.Annotation) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Labels.Publish(ctx, list)
}

func (m *mortal) Claim(ctx context.Context, key string, over uint64) (uint64, bool, error) {
	if m.dead.Load() {
		return 0, false, errDead
	}
	return m.Claims.Claim(ctx, key, over)
}

func (m *mortal) Release(ctx context.Context, key string, revision uint64) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Claims.Release(ctx, key, revision)
}

// kill ends a server as kill -9 does, as far as the others can tell.
func (m *mortal) kill(r running) {
	m.dead.Store(true)
	r.stop()
}

// twenty is the digests of every step by twenty rollouts, in twenty shuffled rounds.
func twenty(steps int) [][]forager.TurnDigest {
	rng := rand.New(rand.NewPCG(5, 5))
	rounds := make([][]forager.TurnDigest, 20)
	for i := range rounds {
		for _, k := range rng.Perm(steps) {
			rounds[i] = append(rounds[i], digestOf(fmt.Sprintf("r%d-%d", i, k), 0, fmt.Sprint("query ", k)))
		}
	}
	return rounds
}

// verifyPaid compares judge calls with the labels in the stream: one paid label
// for every step, and calls beyond that were in flight in the killed server.
func verifyPaid(t *testing.T, steps int, calls, paid map[string]int, callsOfKilled, paidByKilled int) {
	t.Helper()
	total := 0
	for _, n := range calls {
		total += n
	}
	if len(paid) != steps {
		t.Errorf("%d of %d steps have a label", len(paid), steps)
	}
	for step, n := range paid {
		if n != 1 {
			t.Fatalf("%s is paid for %d times in the stream", step, n)
		}
	}
	lost := callsOfKilled - paidByKilled
	if total != steps+lost {
		t.Errorf("%d judge calls, want %d and %d that were lost with the killed server", total, steps, lost)
	}
	digests := 20 * steps
	t.Logf("%d digests of %d steps: %d judge calls, %d of them lost with the killed server; hit rate %.2f %%",
		digests, steps, total, lost, 100*(1-float64(total)/float64(digests)))
}

// TestTwoServersPayOnce: two servers share the digests of 500 steps; one is
// killed in the middle, with its claims left, and started again.
func TestTwoServersPayOnce(t *testing.T) {
	const steps = 500
	synctest.Test(t, func(t *testing.T) {
		s, claims := newStream(), newBucket()
		slow := func(ctx context.Context, item rubric.Item) (Verdict, error) {
			time.Sleep(50 * time.Millisecond) // a call that was sent is paid for, whoever waits for the answer
			return Verdict{Value: 1, Judgement: forager.Judgement{Model: item.Task.ID}}, ctx.Err()
		}
		var graders []*scripted
		server := func(name, index string) (running, *mortal) {
			m := &mortal{Labels: s, Claims: claims.of(name)}
			graders = append(graders, newScripted(slow))
			return start(t, s, graders[len(graders)-1], func(c *Config, d *Deps) {
				d.Labels, d.Claims, d.Index, c.ClaimLease = m, m, openIndex(t, index), 2*time.Second
				c.IntakeBatch = 16
			}), m
		}
		dir := t.TempDir()
		a, mortalA := server("a", filepath.Join(dir, "a.db"))
		b, _ := server("b", filepath.Join(dir, "b.db"))
		var again running
		for _, round := range twenty(steps) {
			for i, d := range round {
				if s.digests <- d; i%16 == 0 {
					time.Sleep(time.Millisecond) // both servers take some
				}
			}
			if again.Server == nil && a.Stats().InFlight > 0 {
				mortalA.kill(a)
				if err := a.deps.Index.Close(); err != nil {
					t.Error(err)
				}
				again, _ = server("a'", filepath.Join(dir, "a.db"))
			}
		}
		if again.Server == nil {
			t.Fatal("no server was killed")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for name, r := range map[string]running{"b": b, "a again": again} {
			if stats := r.Stats(); stats.Queued+stats.InFlight+stats.Elsewhere != 0 || len(stats.Dropped) != 0 {
				t.Errorf("%s at the end: %+v", name, stats)
			}
			t.Logf("%s: %+v, hit rate %.3f", name, r.Stats(), r.Stats().HitRate())
		}
		if b.Stats().Answered == 0 {
			t.Error("no turn was answered with another server's label")
		}
		b.stop()
		again.stop()

		calls, paidByKilled := map[string]int{}, 0
		for _, g := range graders {
			for step, n := range g.calls {
				calls[step] += n
			}
		}
		paid := s.paid()
		for step := range graders[0].calls {
			if graders[1].calls[step]+graders[2].calls[step] == 0 {
				paidByKilled += paid[step]
			}
		}
		if graders[0].total() == paidByKilled {
			t.Error("nothing was in flight when the server was killed")
		}
		verifyPaid(t, steps, calls, paid, graders[0].total(), paidByKilled)
	})
}

// TestLongCallsKeepTheirClaim: a judge that takes ten leases is asked once.
func TestLongCallsKeepTheirClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, claims := newStream(), newBucket()
		grader := newScripted(func(ctx context.Context, _ rubric.Item) (Verdict, error) {
			sleep(ctx, 20*time.Second)
			return Verdict{Value: 1}, nil
		})
		second := newStream()
		server := func(name string, intake Intake) running {
			return start(t, s, grader, func(c *Config, d *Deps) { d.Intake, d.Claims, c.ClaimLease = intake, claims.of(name), 2*time.Second })
		}
		a, b := server("a", s), server("b", second)
		s.digests <- digestOf("r", 0, "x")
		synctest.Wait()
		second.digests <- digestOf("r", 1, "x")
		second.digests <- digestOf("r", 2, "x")
		time.Sleep(time.Minute)
		synctest.Wait()
		a.stop()
		b.stop()
		if grader.total() != 1 || len(s.labels()) != 3 {
			t.Errorf("%d calls, %d labels", grader.total(), len(s.labels()))
		}
	})
}

// slowClaims takes its time for every claim.
type slowClaims struct {
	Claims
	latency time.Duration
}

func (c slowClaims) Claim(ctx context.Context, key string, over uint64) (uint64, bool, error) {
	sleep(ctx, c.latency)
	return c.Claims.Claim(ctx, key, over)
}

// TestClaimsAreMadeAhead: the judge is kept busy though claims take their time,
// is never asked more than it may be, and steps wait for a slow one unclaimed.
func TestClaimsAreMadeAhead(t *testing.T) {
	for _, c := range []struct{ call, claim time.Duration }{{50 * time.Millisecond, 5 * time.Millisecond}, {10 * time.Second, 5 * time.Millisecond}} {
		t.Run(c.call.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const slots = 16
				s, claims := newStream(), newBucket()
				var now, most atomic.Int32
				grader := newScripted(func(ctx context.Context, _ rubric.Item) (Verdict, error) {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					sleep(ctx, c.call)
					return Verdict{Value: 1}, nil
				})
				r := start(t, s, grader, func(config *Config, d *Deps) {
					config.MaxInFlight, d.Claims = slots, slowClaims{claims.of("a"), c.claim}
				})
				for i := range 200 * slots {
					s.digests <- digestOf("r", i, fmt.Sprint("query ", i))
				}
				time.Sleep(100*c.call + c.call/2)
				synctest.Wait()
				claimed := len(claims.held) - grader.total()
				r.stop()
				if n := grader.total(); n < 95*slots || most.Load() != slots {
					t.Errorf("%d calls in the time of 100 by %d slots; at most %d at one time", n, slots, most.Load())
				}
				if c.call > time.Second && claimed > 0 {
					t.Errorf("%d steps are claimed and wait", claimed)
				}
			})
		})
	}
}

// TestStoppedServerGivesItsClaimsBack: what it had in flight is labelled by the
// other one at once, not after a lease.
func TestStoppedServerGivesItsClaimsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, claims := newStream(), newBucket()
		hangs := newScripted(func(ctx context.Context, _ rubric.Item) (Verdict, error) {
			<-ctx.Done()
			return Verdict{}, ctx.Err()
		})
		a := start(t, s, hangs, func(_ *Config, d *Deps) { d.Claims = claims.of("a") })
		s.digests <- digestOf("r", 0, "x")
		synctest.Wait()
		if len(claims.held) != 1 {
			t.Fatalf("%d claims", len(claims.held))
		}
		a.stop()
		if len(claims.held) != 0 {
			t.Errorf("claims are left: %v", claims.held)
		}
		b := start(t, s, newScripted(yes), func(_ *Config, d *Deps) { d.Claims = claims.of("b") })
		s.digests <- digestOf("r", 1, "x")
		synctest.Wait()
		b.stop()
		if labels := s.labels(); len(labels) != 1 || labels[0].RolloutID != "r" {
			t.Errorf("%+v", labels)
		}
	})
}

// TestBusAway: while no claim can be made nothing is judged, and nothing is lost.
func TestBusAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, grader := newStream(), newScripted(yes)
		m := &mortal{Labels: s, Claims: newBucket().of("a")}
		m.dead.Store(true)
		r := start(t, s, grader, func(_ *Config, d *Deps) { d.Labels, d.Claims = m, m })
		for i := range 20 {
			s.digests <- digestOf("r", i, fmt.Sprint("query ", i))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if grader.total() != 0 || r.Stats().Queued != 20 {
			t.Errorf("%d calls, %+v", grader.total(), r.Stats())
		}
		m.dead.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.stop()
		if len(s.labels()) != 20 {
			t.Errorf("%d labels", len(s.labels()))
		}
		if n := strings.Count(r.log.String(), "cannot be labelled now"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, r.log)
		}
	})
}
