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

// study says what the runs of staleness have in common.
type study struct {
	out     string
	batch   int // groups of a step
	size    int // rollouts of a group
	update  time.Duration
	latency time.Duration // of a turn; the median where it varies
	seeds   int
	steps   uint64 // of the runs that measure lag
	updates uint64 // of those that are compared
	actors  []int
}

// staleness measures how old rollouts are when they are learned from, and what
// it gains that nobody waits.
func staleness(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("staleness", flag.ContinueOnError)
	s := study{actors: []int{1, 4, 16, 64}}
	flags.StringVar(&s.out, "out", filepath.Join("runs", "staleness"), "`folder` for the files of bus and replay")
	flags.IntVar(&s.batch, "batch", 16, "`groups` of a step")
	flags.IntVar(&s.size, "size", 4, "`rollouts` of a group")
	flags.DurationVar(&s.latency, "latency", 50*time.Millisecond, "`time` of a turn; where it varies, the median")
	flags.DurationVar(&s.update, "update", 200*time.Millisecond, "`time` of an update")
	flags.IntVar(&s.seeds, "seeds", 5, "`seeds` of the comparison; the defaults take about twelve minutes")
	part := flags.String("part", "both", "what is measured: lags, speed or `both`")
	steps := flags.Int("steps", 10, "`steps` of a run that measures lag")
	updates := flags.Int("updates", 20, "`steps` of a run that is compared")
	quick := flags.Bool("quick", false, "a run of seconds: one and four actors, one seed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		s.actors, s.seeds, *steps, *updates, s.batch, s.size = []int{1, 4}, 1, 4, 4, 4, 2
		s.latency, s.update = 5*time.Millisecond, 10*time.Millisecond
	}
	if s.batch < 1 || s.size < 1 || s.seeds < 1 || *steps < 2 || *updates < 2 || s.latency <= 0 || s.update < 0 {
		return errors.New("want at least one group, one rollout, one seed and two steps, and times above 0")
	}
	s.steps, s.updates = uint64(*steps), uint64(*updates)
	switch *part {
	case "lags":
		return s.lags(ctx)
	case "speed":
		return s.compare(ctx)
	case "both":
		if err := s.lags(ctx); err != nil {
			return err
		}
		return s.compare(ctx)
	}
	return fmt.Errorf("nothing is named %q: want lags, speed or both", *part)
}

// lags prints how old rollouts were at their use, for numbers of actors.
func (s *study) lags(ctx context.Context) error {
	type weather struct {
		name    string
		latency func(uint64, int) time.Duration
		delay   time.Duration // until published weights are in an actor
		bounded bool          // learner.max_staleness is η
		brief   bool          // the largest numbers of actors say it
	}
	kinds := []weather{
		{"even", always(s.latency), 0, false, false},
		{"even, weights 2 updates late", always(s.latency), 2 * s.update, false, true},
		{"heavy-tailed", heavyTailed(1, s.latency), 0, false, true},
		{"heavy-tailed, max_staleness = η", heavyTailed(1, s.latency), 0, true, false},
	}
	fmt.Fprintf(os.Stdout, "Lag of rollouts at their use, in versions: %d steps of %d groups of %d; turns of %v, updates of %v.\n\n",
		s.steps, s.batch, s.size, s.latency, s.update)
	fmt.Fprintln(os.Stdout, "| turns | η | actors | share of rollouts by lag 0, 1, 2, ... | mean | max | within η | groups dropped |")
	fmt.Fprintln(os.Stdout, "|---|---:|---:|---|---:|---:|---|---:|")
	var broken []string
	for _, kind := range kinds {
		for _, lag := range []int{0, 1, 2} {
			for _, n := range s.actors {
				if kind.bounded && lag == 0 {
					continue // 0 is no limit, and nothing is late when each step waits
				}
				if kind.brief && n < s.actors[len(s.actors)-2] {
					continue
				}
				r, err := s.train(ctx, training{steps: s.steps, lag: lag, actors: n, latency: kind.latency, delay: kind.delay, bounded: kind.bounded})
				if err != nil {
					return fmt.Errorf("%d actors, lag %d: %w", n, lag, err)
				}
				within := "yes"
				if r.lags.max() > lag {
					within = "no"
					broken = append(broken, fmt.Sprintf("%s, η %d, %d actors: %d", kind.name, lag, n, r.lags.max()))
				}
				fmt.Fprintf(os.Stdout, "| %s | %d | %d | %s | %.2f | %d | %s | %.1f %% |\n", kind.name, lag, n, r.lags, r.lags.mean(), r.lags.max(), within,
					100*float64(r.dropped)/float64(r.dropped+r.lags.total()/s.size))
			}
		}
	}
	fmt.Fprintf(os.Stderr, "older than η: %d of the runs: %s\n", len(broken), strings.Join(broken, "; "))
	return nil
}

// compare prints the wall-clock time of synchronous training over that of
// asynchronous training, at equal updates with the same episodes.
func (s *study) compare(ctx context.Context) error {
	actors := 16
	if last := s.actors[len(s.actors)-1]; last < actors {
		actors = last
	}
	type arm struct {
		lag     int
		bounded bool
	}
	arms := []arm{{0, false}, {1, false}, {1, true}, {2, false}, {2, true}} // the first is what the others are compared with
	ratios := map[arm][]float64{}
	for seed := range s.seeds {
		var waited float64
		for i, a := range arms {
			r, err := s.train(ctx, training{
				steps: s.updates, lag: a.lag, bounded: a.bounded, actors: actors, latency: heavyTailed(uint64(seed+1), s.latency), seed: uint64(seed + 1),
			})
			if err != nil {
				return fmt.Errorf("seed %d, lag %d: %w", seed+1, a.lag, err)
			}
			fmt.Fprintf(os.Stderr, "seed %d, lag %d, bounded %v: %d updates in %.1f s, of rollouts at most %d versions old; %d groups dropped\n",
				seed+1, a.lag, a.bounded, s.updates, r.took.Seconds(), r.lags.max(), r.dropped)
			if i == 0 {
				waited = r.took.Seconds()
				continue
			}
			ratios[a] = append(ratios[a], waited/r.took.Seconds())
		}
	}
	fmt.Fprintf(os.Stdout, "\nSynchronous (η = 0, each step waits for all its groups) over asynchronous wall-clock time at %d updates, %d actors, %d seeds; "+
		"turns are log-normal, median %v, σ 1, at most 20 medians; updates take %v:\n\n", s.updates, actors, s.seeds, s.latency, s.update)
	fmt.Fprintln(os.Stdout, "| η | max_staleness | min | median | max |\n|---:|---:|---:|---:|---:|")
	for _, a := range arms[1:] {
		bound := "none"
		if a.bounded {
			bound = fmt.Sprint(a.lag)
		}
		r := spreadOf(ratios[a])
		fmt.Fprintf(os.Stdout, "| %d | %s | %.2f | %.2f | %.2f |\n", a.lag, bound, r.min, r.median, r.max)
	}
	return nil
}

// histogram counts rollouts by lag.
type histogram []int

func (h *histogram) add(lag int) {
	for len(*h) <= lag {
		*h = append(*h, 0)
	}
	(*h)[lag]++
}

func (h histogram) max() int { return len(h) - 1 }

func (h histogram) total() int {
	n := 0
	for _, count := range h {
		n += count
	}
	return n
}

func (h histogram) mean() float64 {
	sum := 0
	for lag, count := range h {
		sum += lag * count
	}
	return float64(sum) / float64(max(1, h.total()))
}

func (h histogram) String() string {
	shares := make([]string, 0, len(h))
	for _, count := range slices.All(h) {
		shares = append(shares, fmt.Sprintf("%.1f %%", 100*float64(count)/float64(h.total())))
	}
	return strings.Join(shares, ", ")
}
