package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The services that are broken. leader stands for the voter that leads just then.
const leader = "leader"

var services = []string{
	"nats", "cluster-1", "cluster-2", "cluster-3", "replay", "rewardsrv", "retriever", "learner-1", "learner-2", "actor",
}

// fault breaks a container, for a while where that makes sense, and mends it.
type fault func(ctx context.Context, c composition, target container, hold time.Duration) error

var kinds = map[string]fault{
	"kill":       kill,
	"pause":      pauseFor,
	"disconnect": disconnect,
	"restart":    restart,
}

// kill is kill -9, from outside of Docker: the restart policy brings it back.
func kill(_ context.Context, _ composition, target container, _ time.Duration) error {
	if target.PID <= 1 { // 0 would be this program's own group
		return fmt.Errorf("container %s has no process to kill", target.ID)
	}
	return syscall.Kill(target.PID, syscall.SIGKILL)
}

func pauseFor(ctx context.Context, _ composition, target container, hold time.Duration) error {
	if _, err := docker(ctx, "pause", target.ID); err != nil {
		return err
	}
	wait(ctx, hold)
	_, err := docker(context.WithoutCancel(ctx), "unpause", target.ID)
	return err
}

func disconnect(ctx context.Context, c composition, target container, hold time.Duration) error {
	network := c.project + "_default"
	if _, err := docker(ctx, "network", "disconnect", network, target.ID); err != nil {
		return err
	}
	wait(ctx, hold)
	_, err := docker(context.WithoutCancel(ctx), "network", "connect", "--alias", target.Service, network, target.ID)
	return err
}

func restart(ctx context.Context, _ composition, target container, _ time.Duration) error {
	_, err := docker(ctx, "restart", "--time", "45", target.ID)
	return err
}

// event is one line of the log.
type event struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	Target  string    `json:"container"`
	Fault   string    `json:"fault"`
	Seconds float64   `json:"seconds"`
	Error   string    `json:"error,omitempty"`
}

// plan deals every pair of service and fault once before any comes again, in an
// order that the seed gives.
type plan struct {
	random *rand.Rand
	deck   []pair
}

type pair struct{ service, fault string }

func (p *plan) next() pair {
	if len(p.deck) == 0 {
		for _, service := range append([]string{leader}, services...) {
			for _, kind := range slices.Sorted(maps.Keys(kinds)) {
				p.deck = append(p.deck, pair{service, kind})
			}
		}
		p.random.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
	}
	drawn := p.deck[0]
	p.deck = p.deck[1:]
	return drawn
}

// between gives a time from low up to high.
func (p *plan) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.random.Int64N(int64(high-low)))
}

// faults breaks one container after another until the time is over or the
// learners have ended, and leaves all of them mended.
func faults(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	project := flags.String("project", "forager", "compose `project`")
	limit := flags.Duration("for", 30*time.Minute, "how `long`")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "`number` that gives the order and the times")
	path := flags.String("log", "", "`file` for what was done, a JSON object a line; empty writes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := io.Discard
	if *path != "" {
		file, err := os.Create(*path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // whole lines, written one by one
		log = file
	}
	fmt.Fprintf(os.Stdout, "seed %d\n", *seed)
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	s := session{c: composition{*project}, plan: plan{random: rand.New(rand.NewPCG(*seed, 0))}, out: os.Stdout, log: json.NewEncoder(log), counts: map[pair]int{}}
	err := s.run(ctx)
	s.tally()
	return err
}

type session struct {
	c      composition
	plan   plan
	out    io.Writer
	log    *json.Encoder
	counts map[pair]int // what was done
	missed int          // drawn, and not there at that moment
	failed []string
}

// maxFailures is how many faults may fail before something else is wrong.
const maxFailures = 10

func (s *session) run(ctx context.Context) error {
	started := time.Now()
	for ctx.Err() == nil {
		all, err := s.c.containers(ctx, services)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		if finished(all) {
			fmt.Fprintf(s.out, "the learners have ended, and with them the faults, after %s: more steps make it longer\n", time.Since(started).Round(time.Second))
			break
		}
		drawn := s.plan.next()
		hold, gap := s.plan.between(2*time.Second, 12*time.Second), s.plan.between(2*time.Second, 6*time.Second)
		choice := s.plan.random.Uint64()
		target, ok := s.target(ctx, drawn, all, choice)
		if !ok {
			s.missed++
			continue
		}
		if err := s.do(ctx, drawn, target, hold); err != nil {
			return err
		}
		wait(ctx, gap)
	}
	return nil
}

// target finds a container for what was drawn.
func (s *session) target(ctx context.Context, drawn pair, all []container, choice uint64) (container, bool) {
	service := drawn.service
	if service == leader {
		i := slices.IndexFunc(all, func(c container) bool { return strings.HasPrefix(c.Service, "cluster-") })
		if i < 0 {
			return container{}, false
		}
		var err error
		if service, err = s.c.leader(ctx, all[i]); err != nil {
			fmt.Fprintln(s.out, "no leader to break:", err)
			return container{}, false
		}
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c container) bool { return c.Service != service || !c.Running })
	if len(all) == 0 {
		return container{}, false
	}
	return all[choice%uint64(len(all))], true
}

func (s *session) do(ctx context.Context, drawn pair, target container, hold time.Duration) error {
	begun := time.Now()
	// What has begun is mended, also when the time is over meanwhile.
	err := kinds[drawn.fault](context.WithoutCancel(ctx), s.c, target, hold)
	e := event{Time: begun.UTC(), Service: target.Service, Target: target.ID[:12], Fault: drawn.fault, Seconds: time.Since(begun).Seconds()}
	if err != nil {
		e.Error = err.Error()
		s.failed = append(s.failed, e.Error)
	} else {
		s.counts[drawn]++
	}
	fmt.Fprintf(s.out, "%s %-10s %-10s %s %.1fs %s\n", e.Time.Format(time.TimeOnly), e.Fault, drawn.service, e.Target, e.Seconds, e.Error)
	if len(s.failed) >= maxFailures {
		return fmt.Errorf("%d faults failed, the last: %w", len(s.failed), err)
	}
	return s.log.Encode(e)
}

// finished says whether every learner has ended by itself.
func finished(all []container) bool {
	ended := 0
	for _, c := range all {
		if strings.HasPrefix(c.Service, "learner-") {
			if !c.Ended {
				return false
			}
			ended++
		}
	}
	return ended > 0
}

func (s *session) tally() {
	w := s.out
	names := slices.Sorted(maps.Keys(kinds))
	fmt.Fprintf(w, "| service | %s |\n|---|%s\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)))
	for _, service := range append([]string{leader}, services...) {
		fmt.Fprintf(w, "| %s |", service)
		for _, kind := range names {
			fmt.Fprintf(w, " %d |", s.counts[pair{service, kind}])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d failed, %d times nothing was there to break\n", len(s.failed), s.missed)
	for _, text := range s.failed {
		fmt.Fprintln(w, "failed:", text)
	}
}

// wait waits, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
