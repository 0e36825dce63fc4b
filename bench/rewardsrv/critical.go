package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/forager-rl/forager/rundir"
)

// absent is no mood of a judge: the reward server is off in both windows of a
// pair. Its ratios are the noise of the measurement.
const absent mood = "none"

// contest compares learner steps a second with the reward server at work and
// stopped, within one run: windows of a few steps take turns, so that what else
// the machine does falls on both alike.
type contest struct {
	runs
	pairs, window, skip int
	latency             time.Duration // of a search
}

// critical measures whether the reward server is ever on the critical path.
//
// Every role is a process of its own. All the while turns are scored and the
// scores not paid, and the policy stays as it is. Between two windows the reward
// server is stopped or continued, and the step under way is left out. Searches
// take as long as from a retriever elsewhere, so that the processors have room:
// what shows is waiting. What the reward server takes of a processor is counted.
func critical(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("critical", flag.ContinueOnError)
	c := &contest{}
	flags.StringVar(&c.binary, "forager", "", "the `binary` to measure; default: built from this checkout")
	flags.StringVar(&c.out, "out", filepath.Join("runs", "critical"), "new `folder` for runs and logs")
	flags.Var(&c.extra, "set", "further `setting` KEY=VALUE of every run; may be repeated")
	flags.IntVar(&c.pairs, "pairs", 12, "`pairs` of windows for each behaviour of the judge; the defaults take about 25 minutes")
	flags.IntVar(&c.window, "window", 8, "`steps` of a window")
	flags.IntVar(&c.skip, "skip", 5, "`steps` at the start that are not measured")
	flags.DurationVar(&c.latency, "latency", 500*time.Millisecond, "`time` that a search takes; with 0 the roles fight for the processors")
	judges := flags.String("judges", "none,fast,slow,dead,garbage,flapping", "`list` of how the judge behaves; none shows the noise")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var moods []mood
	for name := range strings.SplitSeq(*judges, ",") {
		m := mood(name)
		if !slices.Contains([]mood{absent, fast, slow, dead, garbage, flapping}, m) {
			return fmt.Errorf("no judge is %q", name)
		}
		moods = append(moods, m)
	}
	if _, err := os.Stat(c.out); err == nil {
		return fmt.Errorf("%s exists: a measurement starts afresh, name another folder with -out", c.out)
	}
	if c.pairs < 1 || c.window < 1 || c.skip < 1 {
		return errors.New("want at least one pair, one step in a window and one skipped step")
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "Learner steps a second with the reward server at work, over those with it stopped, %d pairs of windows of %d steps:\n\n", c.pairs, c.window)
	fmt.Fprintln(os.Stdout, "| judge | min | median | max | mean, standard error | within 5 % | steps/s | judge calls | reward server, share of one processor |\n|---|---:|---:|---:|---:|---|---:|---:|---:|")
	failed := false
	for _, m := range moods {
		o, err := c.measure(ctx, m)
		if err != nil {
			return fmt.Errorf("judge %s: %w", m, err)
		}
		s := spreadOf(o.ratios)
		mean, deviation := meanOf(o.ratios)
		within := s.median >= 0.95
		failed = failed || !within && m != absent
		fmt.Fprintf(os.Stdout, "| %s | %s | %.3f ± %.3f | %s | %.2f | %d | %.3f |\n", m, s, mean, deviation, map[bool]string{true: "yes", false: "no"}[within], o.rate, o.calls, o.share)
	}
	if failed {
		return errors.New("a judge slows the learner down by more than 5 %")
	}
	return nil
}

// outcome is what the windows with one judge came to.
type outcome struct {
	ratios []float64 // by pair: time of the window without over that of the window with
	rate   float64   // steps a second over all windows
	calls  int64     // of the judge
	share  float64   // of one processor that the reward server took while it was at work
}

// measure trains with one judge and lets windows take turns.
func (c *contest) measure(ctx context.Context, m mood) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	id := string(m)
	shown := m
	if m == absent {
		shown = fast
	}
	e := newEndpoint(shown)
	defer e.close()
	address, err := e.address()
	if err != nil {
		return o, err
	}
	p := &parts{runs: c.runs, id: id, latency: c.latency, settings: slices.Concat([]string{
		"run.root=" + c.out, "admin.listen=", "learner.steps=1000000", "learner.learning_rate=1e-12", "learner.groups_per_step=4",
		// Steps of as many groups, informative or not: how many are dropped on the way
		// to four explains half of the variance of a step's time.
		"learner.max_groups_per_step=4", "reward.weights={em: 1, evidence_recall: 0.5}",
		"search.cache=0",
		"bus.max_digests=262144", // what waits for a reward server that is stopped is not done later
	}, judgedBy(address), c.extra)}
	defer func() { err = errors.Join(err, p.end()) }()
	if err := p.begin(ctx); err != nil {
		return o, err
	}
	metrics := filepath.Join(c.out, id, "metrics.jsonl")
	at := func(step int) (float64, error) { return elapsed(ctx, metrics, step) }

	step := c.skip
	if _, err := at(step); err != nil {
		return o, err
	}
	server := p.processes["rewardsrv"].Process
	var worked time.Duration
	total := 0.0
	for pair := range c.pairs {
		var seconds [2]float64 // with, without
		for turn := range 2 {
			without := (turn+pair)%2 == 1
			if err := server.Signal(map[bool]syscall.Signal{true: syscall.SIGSTOP, false: syscall.SIGCONT}[without || m == absent]); err != nil {
				return o, err
			}
			begin, err := at(step + 2) // the step under way, and the one after it
			if err != nil {
				return o, err
			}
			end, err := at(step + 2 + c.window)
			if err != nil {
				return o, err
			}
			step += 2 + c.window
			index := map[bool]int{true: 1}[without]
			seconds[index] = end - begin
			total += end - begin
			if !without {
				worked += time.Duration((end - begin) * (1 + 2/float64(c.window)) * float64(time.Second))
			}
		}
		o.ratios = append(o.ratios, seconds[1]/seconds[0])
		fmt.Fprintf(os.Stderr, "judge %s, pair %d: %.3f\n", m, pair+1, seconds[1]/seconds[0])
	}
	o.rate = float64(2*c.pairs*c.window) / total
	o.calls = e.calls.Load()
	if err := p.end(); err != nil {
		return o, err
	}
	used := p.processes["rewardsrv"].ProcessState
	o.share = (used.UserTime() + used.SystemTime()).Seconds() / worked.Seconds()
	return o, nil
}

// elapsed waits for a step and gives its time, in seconds of the learner's clock.
func elapsed(ctx context.Context, metrics string, step int) (float64, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := rundir.ReadMetrics(metrics)
		if err == nil && len(rows) >= step {
			return rows[step-1].Values["elapsed_seconds"], nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for step %d in %s: %w", step, metrics, ctx.Err())
		}
	}
}

// judgedBy has the steps labelled by an endpoint, and a reward model trained.
func judgedBy(address string) []string {
	return []string{
		"judge.judge=llm", "judge.llm.model=bench", "judge.llm.endpoints=[{base_url: '" + address + "'}]",
		"judge.reward_model.kind=classification", "reward.intrinsic.source=classification",
	}
}
