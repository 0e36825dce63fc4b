package rewardsrv

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// The claims about the reward server, measured over a real bus and a real disk:
//
//	go test ./rewardsrv -run Full -full -v
//
// Without -full the same tests run with small numbers, as part of every run.
var full = flag.Bool("full", false, "measure the claims about the reward server with their full numbers")

func scale(small, whole int) int {
	if *full {
		return whole
	}
	return small
}

func openBus(t *testing.T, url string) *bus.Bus {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.URL, cfg.MaxDigests, cfg.AckWait = "full", url, 1<<30, 2*time.Second
	if url == "" {
		cfg.StoreDir, cfg.Provision = t.TempDir(), true
	}
	b, err := bus.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// busStream is Intake and Labels over a bus, as package node makes them.
type busStream struct{ *bus.Bus }

func (s busStream) Next(ctx context.Context, _ int) ([]forager.TurnDigest, error) {
	messages, err := s.Fetch(ctx, bus.Digests, 16, time.Second)
	var list []forager.TurnDigest
	for _, m := range messages {
		digests, err := batch.DecodeDigests(m.Data)
		if err != nil {
			return nil, err
		}
		list = append(list, digests...)
		if err := m.Ack(); err != nil {
			return nil, err
		}
	}
	return list, err
}

func (s busStream) Publish(ctx context.Context, list []forager.Annotation) error {
	data, err := batch.EncodeAnnotations(list)
	if err != nil {
		return err
	}
	return s.Bus.Publish(ctx, bus.Annotations, "", data)
}

func (s busStream) Last(ctx context.Context) (uint64, error) {
	info, err := s.StreamInfo(ctx, bus.Annotations)
	return info.LastSequence, err
}

func (s busStream) Replay(ctx context.Context, from uint64, fn func(uint64, []forager.Annotation) error) error {
	return s.Bus.Replay(ctx, bus.Annotations, from, decoded(fn))
}

func (s busStream) Follow(ctx context.Context, from uint64, fn func(uint64, []forager.Annotation) error) error {
	return s.Bus.Follow(ctx, bus.Annotations, from, decoded(fn))
}

func decoded(fn func(uint64, []forager.Annotation) error) func(uint64, []byte) error {
	return func(seq uint64, data []byte) error {
		list, err := batch.DecodeAnnotations(data)
		if err != nil {
			return err
		}
		return fn(seq, list)
	}
}

// offer publishes digests as actors do, 64 to a message.
func (s busStream) offer(t *testing.T, digests []forager.TurnDigest) {
	t.Helper()
	for part := range slices.Chunk(digests, 64) {
		data, err := batch.EncodeDigests(part)
		if err == nil {
			err = s.Bus.Publish(t.Context(), bus.Digests, "", data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// await polls until a condition holds, within two minutes.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for tick := time.NewTicker(5 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// TestFullPaidOnce: 100,000 digests of 5,000 steps, two reward servers on one
// bus, each with a connection of its own; one is killed in the middle, with its
// claims left, and started again on its index.
func TestFullPaidOnce(t *testing.T) {
	steps := scale(250, 5000)
	home := busStream{openBus(t, "")}
	slow := func(ctx context.Context, _ rubric.Item) (Verdict, error) {
		time.Sleep(20 * time.Millisecond)
		return Verdict{Value: 1, Rationale: "good"}, ctx.Err()
	}
	var graders []*scripted
	server := func(index string) (running, *mortal) {
		b := busStream{openBus(t, home.URL())}
		m := &mortal{Labels: b, Claims: b}
		graders = append(graders, newScripted(slow))
		return start(t, newStream(), graders[len(graders)-1], func(c *Config, d *Deps) {
			d.Intake, d.Labels, d.Claims, d.Index = b, m, m, openIndex(t, index)
			c.MaxInFlight, c.ClaimLease = 64, 2*time.Second
		}), m
	}
	dir := t.TempDir()
	a, mortalA := server(filepath.Join(dir, "a.db"))
	b, _ := server(filepath.Join(dir, "b.db"))
	var again running
	begun := time.Now()
	for i, round := range twenty(steps) {
		home.offer(t, round)
		if i == 0 { // half of the steps are labelled, the rest are queued or in flight
			await(t, "first labels", func() bool { return graders[0].total()+graders[1].total() > steps/2 })
			mortalA.kill(a)
			if err := a.deps.Index.Close(); err != nil {
				t.Error(err)
			}
			again, _ = server(filepath.Join(dir, "a.db"))
		}
	}
	await(t, "the last label", func() bool {
		x, y := b.Stats(), again.Stats()
		info, err := home.StreamInfo(t.Context(), bus.Digests)
		return err == nil && info.Messages == 0 && x.Queued+x.InFlight+x.Elsewhere+y.Queued+y.InFlight+y.Elsewhere == 0 &&
			x.Published == x.Wanted && y.Published == y.Wanted
	})
	took := time.Since(begun)
	b.stop()
	again.stop()

	calls := map[string]int{}
	for _, g := range graders {
		for step, n := range g.calls {
			calls[step] += n
		}
	}
	paid, paidByKilled := map[string]int{}, 0
	err := home.Replay(t.Context(), 1, func(_ uint64, list []forager.Annotation) error {
		for _, a := range list {
			if a.Judgement.Query == "" {
				continue
			}
			paid[a.Judgement.Query]++
			if step := a.Judgement.Query; graders[0].calls[step] > 0 && graders[1].calls[step]+graders[2].calls[step] == 0 {
				paidByKilled++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	verifyPaid(t, steps, calls, paid, graders[0].total(), paidByKilled)
	t.Logf("in %v; answered from another server's labels: %d turns", took.Round(time.Millisecond), b.Stats().Answered+again.Stats().Answered)
}

// TestFullKeepsUp: a judge that takes 50 ms, 64 calls at one time, a claim before
// each and a label on the stream after it: at least 95 % of the ideal 1,280 labels
// a second.
func TestFullKeepsUp(t *testing.T) {
	const ideal = 64 / 0.05
	seconds := scale(1, 20)
	home := busStream{openBus(t, "")}
	steps := make([]forager.TurnDigest, int(ideal)*(seconds+3))
	for i := range steps {
		steps[i] = realistic(i, i)
	}
	home.offer(t, steps)
	var mu sync.Mutex
	var calls []call
	grader := newScripted(func(ctx context.Context, _ rubric.Item) (Verdict, error) {
		start := time.Now()
		sleep(ctx, 50*time.Millisecond)
		mu.Lock()
		calls = append(calls, call{start, time.Now()})
		mu.Unlock()
		return Verdict{Value: 1, Rationale: "good"}, nil
	})
	before := bare(scale(1, 5))
	r := start(t, newStream(), grader, func(c *Config, d *Deps) {
		d.Intake, d.Labels, d.Claims = home, home, home
		c.MaxInFlight, c.MaxQueued, c.MaxQueuedBytes = 64, len(steps), 1<<30
	})
	await(t, "enough labels", func() bool { return r.Stats().Published >= uint64(float64(seconds+1)*ideal) })
	r.stop()
	after := bare(scale(1, 5))
	// Between the first second, in which the queue fills, and the last.
	calls = calls[int(ideal) : int(ideal)*(seconds+1)]
	var busy time.Duration
	for _, c := range calls {
		busy += c.end.Sub(c.start)
	}
	window := calls[len(calls)-1].end.Sub(calls[0].end)
	rate := float64(len(calls)-1) / window.Seconds()
	inFlight := busy.Seconds() / window.Seconds() // Little's law
	t.Logf("%.0f labels/s over %.1f s, %.1f %% of %.0f; the judge took %.1f ms and had %.1f of 64 calls in flight on average",
		rate, window.Seconds(), 100*rate/ideal, ideal, 1000*busy.Seconds()/float64(len(calls)), inFlight)
	t.Logf("64 callers of that judge and nothing else made %.0f calls/s right before and %.0f right after", before, after)
	// On a busy machine the judge's timers fire late too: what counts is that it
	// never waits for the server.
	if *full && inFlight < 0.95*64 {
		t.Errorf("%.1f calls in flight, want at least %.1f", inFlight, 0.95*64)
	}
}

type call struct{ start, end time.Time }

// bare is how many calls of 50 ms a second 64 callers make on this machine now.
func bare(seconds int) float64 {
	var calls atomic.Int64
	var callers sync.WaitGroup
	begun := time.Now()
	for range 64 {
		callers.Go(func() {
			for time.Since(begun) < time.Duration(seconds)*time.Second {
				time.Sleep(50 * time.Millisecond)
				calls.Add(1)
			}
		})
	}
	callers.Wait()
	return float64(calls.Load()) / time.Since(begun).Seconds()
}

// realistic is a digest of three passages of 600 characters.
func realistic(rollout, step int) forager.TurnDigest {
	d := forager.TurnDigest{
		RolloutID: fmt.Sprintf("20260102-laos/%d/%d", rollout/8, rollout%8), TaskID: "bridge", Turn: step % 4,
		Question: "What is the capital of the country where Chimay is brewed?", Query: fmt.Sprint("where is beer number ", step, " brewed"), Answer: "Brussels",
	}
	for i := range 3 {
		text := strings.Repeat(fmt.Sprintf("beer %d was %d years old. ", step, i), 30)[:600]
		d.Passages = append(d.Passages, forager.Passage{ID: fmt.Sprint("passage-", step, "-", i), Title: "Beer", Text: text})
		d.Observation += text + "\n"
	}
	return d
}

// TestFullBacklog: a million digests while the judge is dead, each of a step of
// its own and then of 5,000 steps; what the server takes from the system.
func TestFullBacklog(t *testing.T) {
	digests := scale(20_000, 1_000_000)
	for name, steps := range map[string]int{"all distinct": digests, "5,000 steps": 5000} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			deps := testDeps(t, newStream(), &bytes.Buffer{}, newScripted(nil))
			server, err := New(config, deps)
			if err != nil {
				t.Fatal(err)
			}
			out := make(chan forager.Annotation, config.MaxUnpublished)
			rng := rand.New(rand.NewPCG(1, 1))
			begun := time.Now()
			var most uint64
			for i := 0; i < digests; i += 4 {
				var e episode
				for k := range 4 {
					step := i + k
					if steps < digests {
						step = rng.IntN(steps)
					}
					d := realistic(i, step)
					d.Turn = k
					e = append(e, d)
				}
				if err := server.acceptEpisode(e, out); err != nil {
					t.Fatal(err)
				}
				if i%20_000 == 0 {
					most = max(most, taken())
				}
			}
			took := time.Since(begun)
			most = max(most, taken())
			z := server.ledger.sizes()
			t.Logf("%d digests in %v: %d steps wait, %d MB of text and turns, %v dropped; the process takes at most %d MB",
				digests, took.Round(time.Millisecond), z.queued, z.bytes>>20, server.Stats().Dropped, most>>20)
			if most > 512<<20 {
				t.Errorf("%d MB, want less than 512", most>>20)
			}
			if peak := highWater(); peak > 0 {
				t.Logf("resident memory of the process was at most %d MB", peak>>20)
			}
		})
	}
}

// taken is what the runtime holds of the system's memory.
func taken() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

// highWater is the most memory that the process ever had resident, where the
// system tells, in bytes.
func highWater() uint64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kb uint64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}
