package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	if err := flags.Parse(args); err != nil {
		return err
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
	moods := []mood{fast, slow, dead, garbage, flapping}
	ratios, calls := map[mood][]float64{}, map[mood]int64{}
	for round := range *rounds {
		for _, m := range moods {
			measure := func(with bool) (float64, error) {
				rate, asked, err := r.speed(ctx, fmt.Sprintf("%d-%s-%t", round+1, m, with), *steps, *skip, m, with)
				calls[m] += asked
				return rate, err
			}
			first := round%2 == 0 // whether the run without comes first
			a, err := measure(!first)
			if err != nil {
				return err
			}
			b, err := measure(first)
			if err != nil {
				return err
			}
			ratio := b / a
			if !first {
				ratio = a / b
			}
			ratios[m] = append(ratios[m], ratio)
			fmt.Fprintf(os.Stderr, "round %d, judge %s: %.3f\n", round+1, m, ratio)
		}
	}
	fmt.Printf("Learner steps a second with the reward server, over those without, %d pairs of runs of %d steps each:\n\n", *rounds, *steps-*skip)
	fmt.Println("| judge | min | median | max | calls | within 5 % |\n|---|---:|---:|---:|---:|---|")
	failed := false
	for _, m := range moods {
		s := spreadOf(ratios[m])
		within := s.median >= 0.95
		failed = failed || !within
		fmt.Printf("| %s | %s | %d | %s |\n", m, s, calls[m], map[bool]string{true: "yes", false: "no"}[within])
	}
	if failed {
		return errors.New("a judge slows the learner down by more than 5 %")
	}
	return nil
}

// speed is the learner's steps a second of one run, and how often its judge was
// asked.
func (r *runs) speed(ctx context.Context, id string, steps, skip int, m mood, with bool) (rate float64, calls int64, err error) {
	set := []string{"learner.learning_rate=1e-12"}
	if with {
		e := newEndpoint(m)
		defer e.close()
		address, err := e.address()
		if err != nil {
			return 0, 0, err
		}
		set = append(set, judgedBy(address)...)
		defer func() { calls = e.calls.Load() }()
	} else {
		set = append(set, "judge.judge=none")
	}
	rows, err := r.train(ctx, time.Duration(steps)*30*time.Second, id, steps, set...)
	if err != nil {
		return 0, 0, err
	}
	elapsed := rows[steps-1].Values["elapsed_seconds"] - rows[skip-1].Values["elapsed_seconds"]
	return float64(steps-skip) / elapsed, 0, nil
}

// judgedBy has the steps labelled by an endpoint, and a reward model trained.
func judgedBy(address string) []string {
	return []string{
		"judge.judge=llm", "judge.llm.model=bench", "judge.llm.endpoints=[{base_url: '" + address + "'}]",
		"judge.reward_model.kind=classification", "reward.intrinsic.source=classification",
	}
}
