//go:build e2e

// Package e2e runs the real binary as a person does: it trains, is killed and
// resumed, and is spread over many processes. "make e2e" runs it.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/rundir"
	"github.com/forager-rl/forager/tracing/tracetest"
)

// small makes steps of a fraction of a second. Evidence is rewarded as well, so
// that nearly every group teaches something.
var small = []string{
	"--set", "learner.groups_per_step=4", "--set", "learner.max_groups_per_step=8", "--set", "learner.group_size=4",
	"--set", "reward.weights={em: 1, evidence_recall: 0.5}",
	"--set", "search.server.listen=127.0.0.1:0", "--set", "admin.listen=", "--set", "actor.count=1",
}

// TestTrain is the README's command with small steps: it must print the first
// step within a minute and leave a whole run directory.
func TestTrain(t *testing.T) {
	root := t.TempDir()
	p := start(t, "train", "train", small, "--set", "run.root="+root, "--set", "run.id=quick",
		"--steps", "6", "--time-limit", "90s", "--set", "eval.limit=12")
	p.awaitLine("step ", time.Minute)
	p.succeed(2 * time.Minute)

	dir := filepath.Join(root, "quick")
	rows := checkSteps(t, dir, 6)
	for _, row := range rows {
		if em := row.Values["em"]; math.IsNaN(em) || em < 0 || em > 1 {
			t.Errorf("step %d: exact match is %v", row.Step, em)
		}
	}
	if rows[5].Values["total_trained_tokens"] == 0 {
		t.Error("nothing was trained on")
	}
	checkRollouts(t, dir, rows)
	for _, name := range []string{"config.yaml", "report.md", "curve.svg", "checkpoints/latest"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s is not there or empty: %v", name, err)
		}
	}
	report, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil || !strings.Contains(string(report), "| exact match |") {
		t.Errorf("report.md has no table of held-out questions (%v)", err)
	}
}

// TestKilledFiveTimes kills training at random moments and resumes it: the steps
// have no gap and no repeat, no rollout is kept twice, and the run ends where it
// would have ended.
func TestKilledFiveTimes(t *testing.T) {
	const kills, steps = 5, 40
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed of the moments: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	root := t.TempDir()
	dir := filepath.Join(root, "killed")
	session := func(n int) *process {
		args := []string{"--set", "run.root=" + root, "--set", "run.id=killed"}
		if n > 0 {
			args = []string{"--resume", dir}
		}
		return start(t, fmt.Sprintf("session %d", n), "train", small, args, "--steps", fmt.Sprint(steps), "--set", "eval.skip=true")
	}
	for n := range kills {
		before := len(rows(t, dir))
		p := session(n)
		// A few steps, then a moment within one. Sometimes none: while it starts.
		after := before + random.IntN(5)
		p.await("step "+fmt.Sprint(after), time.Minute, func() bool {
			_, err := os.Stat(filepath.Join(dir, "config.yaml"))
			return err == nil && len(rows(t, dir)) >= after
		})
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
		p.kill()
		t.Logf("killed session %d at step %d", n, len(rows(t, dir)))
	}
	session(kills).succeed(3 * time.Minute)
	checkRollouts(t, dir, checkSteps(t, dir, steps))
}

// TestSeparateProcesses trains with every role in a process of its own and two
// actors. On the way one actor and the reward server are killed for good, and
// replay is killed and comes back.
func TestSeparateProcesses(t *testing.T) {
	const steps = 25
	traces := tracetest.Start(t)
	root := t.TempDir()
	dir := filepath.Join(root, "apart")
	common := append(small[:len(small):len(small)], "--set", "run.root="+root, "--run", "apart",
		"--set", fmt.Sprintf("learner.steps=%d", steps), "--set", "actor.groups=1",
		"--set", "actor.keep_alive=500ms", "--set", "bus.ack_wait=3s", "--set", "bus.timeout=3s",
		"--set", "tracing.endpoint="+traces.URL(), "--set", "tracing.flush_interval=100ms")
	nats := start(t, "nats", "nats", common, "--listen", "127.0.0.1:0")
	line := nats.awaitLine("NATS with JetStream at ", 30*time.Second)
	url := line[strings.Index(line, "nats://"):]
	role := func(name, role string, settings ...string) *process {
		return start(t, name, role, append(common[:len(common):len(common)], settings...), "--nats", url)
	}

	role("cluster", "cluster")
	replay := role("replay", "replay")
	rewardServer := role("rewardsrv", "rewardsrv")
	role("retriever", "retriever")
	actors := []*process{role("actor 1", "actor"), role("actor 2", "actor")}
	learner := role("learner", "learner")

	learner.await("rollouts of both actors", 2*time.Minute, func() bool { return len(players(t, dir)) == 2 })
	t.Logf("killing at step %d", len(rows(t, dir)))
	actors[0].kill()
	rewardServer.kill()
	replay.kill()
	again := role("replay again", "replay", "--set", "replay.flight.listen=127.0.0.1:0")
	line = again.awaitLine("Arrow Flight at grpc+tcp://", time.Minute)
	learner.succeed(3 * time.Minute)
	checkRollouts(t, dir, checkSteps(t, dir, steps))
	checkFlight(t, line[strings.Index(line, "://")+3:], dir)
	checkTraces(t, traces)
}

// checkTraces demands a trace in which learner, actor and replay have told their
// parts. The reward server may have been killed before it could.
func checkTraces(t *testing.T, traces *tracetest.Receiver) {
	t.Helper()
	want := []string{
		"forager-learner credit.issue", "forager-actor rollout.group", "forager-actor batch.publish",
		"forager-replay replay.insert", "forager-replay replay.sample",
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !traces.Await(ctx, func(spans []tracetest.Span) bool {
		parts := map[string]map[string]bool{} // by trace
		for _, s := range spans {
			if parts[s.Trace] == nil {
				parts[s.Trace] = map[string]bool{}
			}
			parts[s.Trace][s.Service+" "+s.Name] = true
		}
		for _, part := range parts {
			if !slices.ContainsFunc(want, func(w string) bool { return !part[w] }) {
				return true
			}
		}
		return false
	}) {
		t.Errorf("of %d spans no trace has all of %v", len(traces.Spans()), want)
	}
}

// rows reads metrics.jsonl as far as it is written.
func rows(t *testing.T, dir string) []rundir.MetricsRow {
	t.Helper()
	list, err := rundir.ReadMetrics(filepath.Join(dir, "metrics.jsonl"))
	if err != nil && !errors.Is(err, forager.ErrNotFound) {
		t.Fatal(err)
	}
	return list
}

// checkSteps demands the steps 1 to n, each once and in order.
func checkSteps(t *testing.T, dir string, n int) []rundir.MetricsRow {
	t.Helper()
	list := rows(t, dir)
	for i, row := range list {
		if row.Step != uint64(i+1) {
			t.Fatalf("line %d of metrics.jsonl is of step %d", i+1, row.Step)
		}
	}
	if len(list) != n {
		t.Fatalf("metrics.jsonl ends at step %d, want %d", len(list), n)
	}
	return list
}

// checkRollouts demands that every group that a step was made of is in the
// archive exactly once, and no others but some that were given up: what a killed
// process had not acknowledged comes again, and may be too old by then.
func checkRollouts(t *testing.T, dir string, rows []rundir.MetricsRow) {
	t.Helper()
	sampled, stale := 0, 0
	for _, row := range rows {
		sampled += int(row.Values["groups_sampled"])
		stale += int(row.Values["groups_stale"])
	}
	seen := map[string]bool{}
	groups := 0
	eachFile(t, dir, func(path string) {
		list, err := batch.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		groups += len(list)
		for _, g := range list {
			for _, r := range g.Rollouts {
				if seen[r.ID] {
					t.Errorf("rollout %s is kept twice", r.ID)
				}
				seen[r.ID] = true
			}
		}
	})
	if groups < sampled || groups > sampled+stale {
		t.Errorf("%d groups are kept, the steps were made of %d and gave %d up", groups, sampled, stale)
	}
}

// checkFlight demands that the archive can be read over Arrow Flight, in the order of
// its files.
func checkFlight(t *testing.T, address, dir string) {
	t.Helper()
	var want []string
	eachFile(t, dir, func(path string) {
		list, err := batch.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range list {
			for _, r := range g.Rollouts {
				want = append(want, r.ID)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := flight.NewClientWithMiddleware(address, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stream, err := client.DoGet(ctx, &flight.Ticket{Ticket: []byte(`{"flight": "archive"}`)})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := flight.NewRecordReader(stream)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	at := reader.Schema().FieldIndices("rollout_id")[0]
	var got []string
	for reader.Next() {
		ids := reader.Record().Column(at).(*array.String)
		for i := range ids.Len() {
			got = append(got, strings.Clone(ids.Value(i)))
		}
	}
	if err := reader.Err(); err != nil || len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("%d rollouts come over Flight, %d are in the archive; error %v", len(got), len(want), err)
	}
}

// players names the processes whose rollouts are in the archive.
func players(t *testing.T, dir string) map[string]bool {
	names := map[string]bool{}
	eachFile(t, dir, func(path string) {
		list, err := batch.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range list {
			names[g.Rollouts[0].Actor] = true
		}
	})
	return names
}

func eachFile(t *testing.T, dir string, use func(path string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "rollouts", "*.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		use(path)
	}
}
