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
	"time"
)

// critical compares learner steps a second with and without the reward server.
//
// All runs have the same work: turns are scored, yet the score is not paid, and
// the policy stays as it is. Each run with the reward server is paired with one
// without that runs right before or after it.
func critical(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("critical", flag.ContinueOnError)
	r := &runs{}
	flags.StringVar(&r.binary, "forager", "", "the `binary` to measure; default: built from this checkout")
	flags.StringVar(&r.out, "out", filepath.Join("runs", "critical"), "new `folder` for runs and logs")
	flags.Var(&r.extra, "set", "further `setting` KEY=VALUE of every run; may be repeated")
	steps := flags.Int("steps", 40, "learner `steps` of a run, about a second each")
	skip := flags.Int("skip", 5, "`steps` at the start that are not measured")
	rounds := flags.Int("rounds", 5, "`pairs` for each behaviour of the judge; the defaults take about 45 minutes")
	judges := flags.String("judges", "fast,slow,dead,garbage,flapping", "`list` of how the judge behaves")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var moods []mood
	for name := range strings.SplitSeq(*judges, ",") {
		m := mood(name)
		if !slices.Contains([]mood{fast, slow, dead, garbage, flapping}, m) {
			return fmt.Errorf("no judge is %q", name)
		}
		moods = append(moods, m)
	}
	if _, err := os.Stat(r.out); err == nil {
		return fmt.Errorf("%s exists: a measurement starts afresh, name another folder with -out", r.out)
	}
	if *skip < 1 || *steps <= *skip+1 || *rounds < 1 {
		return errors.New("want at least one round, one skipped step and two measured ones")
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	pairs := map[mood][]pair{}
	for round := range *rounds {
		for _, m := range moods {
			p, err := r.pair(ctx, fmt.Sprintf("%d-%s", round+1, m), *steps, *skip, m, round%2 == 0)
			if err != nil {
				return err
			}
			pairs[m] = append(pairs[m], p)
			fmt.Fprintf(os.Stderr, "round %d, judge %s: %.3f\n", round+1, m, p.speed)
		}
	}
	fmt.Fprintf(os.Stdout, "Learner steps a second with the reward server, over those without, %d pairs of runs of %d steps each:\n\n", *rounds, *steps-*skip)
	fmt.Fprintln(os.Stdout, "| judge | min | median | max | within 5 % | processor time of all roles, median | judge calls |\n|---|---:|---:|---:|---|---:|---:|")
	failed := false
	for _, m := range moods {
		var speeds, costs []float64
		calls := int64(0)
		for _, p := range pairs[m] {
			speeds, costs, calls = append(speeds, p.speed), append(costs, p.cost), calls+p.calls
		}
		s := spreadOf(speeds)
		within := s.median >= 0.95
		failed = failed || !within
		fmt.Fprintf(os.Stdout, "| %s | %s | %s | %.3f | %d |\n", m, s, map[bool]string{true: "yes", false: "no"}[within], spreadOf(costs).median, calls)
	}
	if failed {
		return errors.New("a judge slows the learner down by more than 5 %")
	}
	return nil
}

// pair is a run with the reward server over one without.
type pair struct {
	speed float64 // learner steps a second
	cost  float64 // processor time of the whole process
	calls int64   // of the judge
}

// pair makes two runs, one right after the other.
func (r *runs) pair(ctx context.Context, id string, steps, skip int, m mood, withoutFirst bool) (pair, error) {
	var with, without outcome
	var err error
	if withoutFirst {
		without, err = r.measure(ctx, id+"-without", steps, skip, nil)
	}
	if err == nil {
		e := newEndpoint(m)
		with, err = r.measure(ctx, id+"-with", steps, skip, e)
		e.close()
	}
	if err == nil && !withoutFirst {
		without, err = r.measure(ctx, id+"-without", steps, skip, nil)
	}
	return pair{speed: with.rate / without.rate, cost: with.cpu / without.cpu, calls: with.calls}, err
}

// outcome is what one run came to.
type outcome struct {
	rate  float64 // steps a second after those skipped
	cpu   float64 // seconds
	calls int64
}

// measure makes one run, with a judge or, for nil, without the reward server.
func (r *runs) measure(ctx context.Context, id string, steps, skip int, e *endpoint) (outcome, error) {
	set := []string{"learner.learning_rate=1e-12", "judge.judge=none"}
	if e != nil {
		address, err := e.address()
		if err != nil {
			return outcome{}, err
		}
		set = append(set, judgedBy(address)...)
	}
	rows, cpu, err := r.train(ctx, time.Duration(steps)*30*time.Second, id, steps, set...)
	if err != nil {
		return outcome{}, err
	}
	elapsed := rows[steps-1].Values["elapsed_seconds"] - rows[skip-1].Values["elapsed_seconds"]
	o := outcome{rate: float64(steps-skip) / elapsed, cpu: cpu.Seconds()}
	if e != nil {
		o.calls = e.calls.Load()
	}
	return o, nil
}

// judgedBy has the steps labelled by an endpoint, and a reward model trained.
func judgedBy(address string) []string {
	return []string{
		"judge.judge=llm", "judge.llm.model=bench", "judge.llm.endpoints=[{base_url: '" + address + "'}]",
		"judge.reward_model.kind=classification", "reward.intrinsic.source=classification",
	}
}
