package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/forager-rl/forager/bus"
)

// scale says what is measured how.
type scale struct {
	out      string
	size     int // rollouts of a group
	searches int
	latency  time.Duration
	memory   bool // retriever in each actor's memory, not over HTTP
	warm     time.Duration
	window   time.Duration
	repeats  int
	profile  bool
	casts    []cast
}

// cast is actors at work side by side.
type cast struct{ actors, groups int }

func (c cast) episodes(size int) int { return c.actors * c.groups * size }

// scaling measures how rollouts a second grow with the number of actors.
func scaling(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("scaling", flag.ContinueOnError)
	s := scale{}
	flags.StringVar(&s.out, "out", filepath.Join("runs", "scaling"), "`folder` for the files of bus and replay, and for profiles")
	actors := flags.String("actors", "1,2,4,8,16,32,64", "`numbers` of actors, each a process of its own")
	groups := flags.Int("groups", 1, "`groups` that an actor plays at once")
	crowd := flags.Int("crowd", 1000, "episodes at once of a further cast: a single actor; 0 leaves it out")
	flags.IntVar(&s.size, "size", 8, "`rollouts` of a group")
	flags.IntVar(&s.searches, "searches", 2, "`turns` before the answer")
	flags.DurationVar(&s.latency, "latency", 50*time.Millisecond, "`time` of a turn")
	flags.BoolVar(&s.memory, "memory", false, "each actor has the retriever in its memory; default: all ask one over HTTP")
	flags.DurationVar(&s.warm, "warm", 2*time.Second, "`time` that is not measured, after the first group of each actor")
	flags.DurationVar(&s.window, "window", 8*time.Second, "`time` that is measured")
	flags.IntVar(&s.repeats, "repeats", 3, "`times` that everything is measured; the defaults take about six minutes")
	flags.BoolVar(&s.profile, "profile", false, "keep processor profiles of both sides; they cost a few per cent")
	quick := flags.Bool("quick", false, "a run of seconds: one and two actors, and 64 episodes in one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		*actors, *crowd, s.latency = "1,2", 64, 10*time.Millisecond
		s.warm, s.window, s.repeats = 100*time.Millisecond, time.Second, 1
	}
	for word := range strings.SplitSeq(*actors, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of actors", word)
		}
		s.casts = append(s.casts, cast{n, *groups})
	}
	if s.size < 1 || *groups < 1 || s.repeats < 1 || s.searches < 0 || s.latency <= 0 || s.window <= 0 {
		return errors.New("want at least one rollout, one group and one repeat, and times above 0")
	}
	if *crowd > 0 {
		s.casts = append(s.casts, cast{1, (*crowd + s.size - 1) / s.size})
	}
	shows, err := s.measureAll(ctx)
	if err != nil {
		return err
	}
	s.report(shows)
	return nil
}

// show is what a cast did in the measured time.
type show struct {
	rate   float64 // rollouts a second that were committed
	tokens float64 // a second
	middle float64 // cores used by bus, replay, retriever and the learner's stand-in
	actors float64 // cores used by all actors
	others float64 // cores used by the rest of the machine
	peak   int64   // bytes of memory of the largest actor

	credits uint64 // that waited for an actor at the end; none: actors were idle
	groups  uint64 // that waited for replay at the end
}

// measureAll gives, for each cast, what it did each time.
func (s *scale) measureAll(ctx context.Context) ([][]show, error) {
	shows := make([][]show, len(s.casts))
	for repeat := range s.repeats {
		for i, c := range s.casts {
			one, err := s.measure(ctx, c, fmt.Sprintf("%d-%dx%d", repeat+1, c.actors, c.groups))
			if err != nil {
				return nil, fmt.Errorf("%d actors, %d groups each: %w", c.actors, c.groups, err)
			}
			shows[i] = append(shows[i], one)
			fmt.Fprintf(os.Stderr, "repeat %d, %d × %d episodes: %.1f rollouts/s of %.1f, cores: %.2f middle, %.2f actors, %.2f others; %d credits and %d groups wait\n",
				repeat+1, c.actors, c.groups*s.size, one.rate, s.ideal(c), one.middle, one.actors, one.others, one.credits, one.groups)
		}
	}
	return shows, nil
}

// ideal is the rate of actors that do nothing but wait for the policy.
func (s *scale) ideal(c cast) float64 {
	return float64(c.episodes(s.size)) / (float64(s.searches+1) * s.latency.Seconds())
}

// measure lets a cast play.
func (s *scale) measure(ctx context.Context, c cast, name string) (_ show, err error) {
	const limit = 2 * time.Minute // for all to start
	ctx, cancel := context.WithTimeout(ctx, limit+s.warm+s.window)
	defer cancel()
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return show{}, err
	}
	folder, err := os.MkdirTemp(s.out, "plane-")
	if err != nil {
		return show{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	p, err := openPlane(ctx, folder, newLogger())
	if err != nil {
		return show{}, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	learner, err := joinBus(ctx, p.bus.URL(), newLogger())
	if err != nil {
		return show{}, err
	}
	p.closers = append(p.closers, learner.Close)
	// Twice what the actors hold: a credit always waits for them.
	d := newDrain(learner, s.size, 2*c.actors*c.groups)
	p.start("learner", d.run)

	actors, err := s.hire(ctx, c, p)
	defer func() { err = errors.Join(err, stopAll(actors)) }()
	if err != nil {
		return show{}, err
	}
	if err := d.await(ctx, int64(c.episodes(s.size)), limit); err != nil {
		return show{}, err
	}
	return s.watch(ctx, name, p.bus, d, actors)
}

// hire starts the actors, some at one time.
func (s *scale) hire(ctx context.Context, c cast, p *plane) ([]*child, error) {
	actors := make([]*child, c.actors)
	errs := make([]error, c.actors)
	address := p.retriever
	if s.memory {
		address = ""
	}
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var starting sync.WaitGroup
	for i := range actors {
		starting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			actors[i], errs[i] = startChild(ctx, fmt.Sprint("actor ", i), "actor", "-url", p.bus.URL(), "-retriever", address,
				"-name", fmt.Sprint("actor-", i), "-groups", fmt.Sprint(c.groups), "-searches", fmt.Sprint(s.searches),
				"-latency", s.latency.String())
		})
	}
	starting.Wait()
	var hired []*child
	for _, a := range actors {
		if a != nil {
			hired = append(hired, a)
		}
	}
	return hired, errors.Join(errs...)
}

// watch measures for the window.
func (s *scale) watch(ctx context.Context, name string, b *bus.Bus, d *drain, actors []*child) (show, error) {
	if err := sleep(ctx, s.warm); err != nil {
		return show{}, err
	}
	begin, end := actorQuestion{}, actorQuestion{}
	if s.profile {
		if err := beginProfile(filepath.Join(s.out, name+"-middle.pprof")); err != nil {
			return show{}, err
		}
		defer pprof.StopCPUProfile()
		begin.BeginProfile, end.EndProfile = filepath.Join(s.out, name+"-actor.pprof"), true
	}
	first, err := askAll[usage](actors[:1], begin) // one profile is enough
	if err != nil {
		return show{}, err
	}
	rest, err := askAll[usage](actors[1:], actorQuestion{})
	if err != nil {
		return show{}, err
	}
	before := append(first, rest...)
	started, machine, middle := time.Now(), machineBusy(), used()
	rollouts, tokens := d.rollouts.Load(), d.tokens.Load()
	if err := sleep(ctx, s.window); err != nil {
		return show{}, err
	}
	rollouts, tokens = d.rollouts.Load()-rollouts, d.tokens.Load()-tokens
	took, busy, mine := time.Since(started), machineBusy()-machine, used().CPU-middle.CPU
	credits, err := b.StreamInfo(ctx, bus.Credits)
	if err != nil {
		return show{}, err
	}
	groups, err := b.StreamInfo(ctx, bus.Rollouts)
	if err != nil {
		return show{}, err
	}
	after, err := askAll[usage](actors, end)
	if err != nil {
		return show{}, err
	}
	one := show{rate: float64(rollouts) / took.Seconds(), tokens: float64(tokens) / took.Seconds(), middle: mine.Seconds() / took.Seconds(), credits: credits.Waiting, groups: groups.Waiting}
	for i := range after {
		one.actors += (after[i].CPU - before[i].CPU).Seconds() / took.Seconds()
		one.peak = max(one.peak, after[i].Peak)
	}
	one.others = max(0, busy.Seconds()/took.Seconds()-one.middle-one.actors)
	return one, nil
}

// report prints the table.
func (s *scale) report(shows [][]show) {
	fmt.Fprintf(os.Stdout, "%d cores; turns of %v, %d a rollout, groups of %d; %d repeats of %v: median (least–most).\n\n",
		runtime.NumCPU(), s.latency, s.searches+1, s.size, s.repeats, s.window)
	fmt.Fprintln(os.Stdout, "| actors | episodes at once | rollouts/s | tokens/s | ideal | share of ideal | share of linear | cores: middle | cores: actors | cores: others | memory of an actor |")
	fmt.Fprintln(os.Stdout, "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	knee := "none"
	for i, c := range s.casts {
		over := func(value func(repeat int) float64) spread {
			values := make([]float64, s.repeats)
			for r := range values {
				values[r] = value(r)
			}
			return spreadOf(values)
		}
		linear := over(func(r int) float64 {
			return shows[i][r].rate / shows[0][r].rate * float64(s.casts[0].episodes(s.size)) / float64(c.episodes(s.size))
		})
		if knee == "none" && linear.median < 0.9 {
			knee = fmt.Sprintf("%d episodes at once", c.episodes(s.size))
		}
		peak := int64(math.MinInt64)
		for _, one := range shows[i] {
			peak = max(peak, one.peak)
		}
		fmt.Fprintf(os.Stdout, "| %d | %d | %s | %s | %.0f | %s | %s | %s | %s | %s | %d MiB |\n", c.actors, c.episodes(s.size),
			over(func(r int) float64 { return shows[i][r].rate }).show(0),
			over(func(r int) float64 { return shows[i][r].tokens }).show(0), s.ideal(c),
			over(func(r int) float64 { return shows[i][r].rate / s.ideal(c) }).show(2), linear.show(2),
			over(func(r int) float64 { return shows[i][r].middle }).show(2),
			over(func(r int) float64 { return shows[i][r].actors }).show(2),
			over(func(r int) float64 { return shows[i][r].others }).show(2), peak>>20)
	}
	fmt.Fprintf(os.Stdout, "\nFirst cast below 0.9 of linear: %s.\n", knee)
}

// sleep waits, or tells that it was interrupted.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
