package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/forager-rl/forager/rundir"
)

// runs makes training runs with one binary in one folder.
type runs struct {
	binary string
	out    string
	extra  settings // for every run, after all others
}

// settings is a list of KEY=VALUE, as a flag that may be repeated.
type settings []string

func (s *settings) String() string         { return strings.Join(*s, " ") }
func (s *settings) Set(value string) error { *s = append(*s, value); return nil }

// build compiles the binary from this checkout, unless one is named.
func (r *runs) build(ctx context.Context) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	if r.binary != "" {
		return nil
	}
	r.binary = filepath.Join(r.out, "forager")
	build := exec.CommandContext(ctx, "go", "build", "-o", r.binary, "./cmd/forager")
	build.Stderr = os.Stderr
	return build.Run()
}

// command runs the binary to its end, within a limit, and gives the processor time
// that it took; its output goes to NAME.log.
func (r *runs) command(ctx context.Context, limit time.Duration, name string, args ...string) (cpu time.Duration, err error) {
	log, err := os.Create(filepath.Join(r.out, name+".log"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := exec.CommandContext(ctx, r.binary, args...)
	c.Stdout, c.Stderr = log, log
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = time.Minute
	if err := c.Run(); err != nil {
		return 0, fmt.Errorf("%s (see %s): %w", name, log.Name(), err)
	}
	return c.ProcessState.UserTime() + c.ProcessState.SystemTime(), nil
}

// train makes a run of so many steps and gives its metrics and the processor time
// of the whole process. One that is there already, from an interrupted
// measurement, is gone on with.
func (r *runs) train(ctx context.Context, limit time.Duration, id string, steps int, set ...string) ([]rundir.MetricsRow, time.Duration, error) {
	dir := filepath.Join(r.out, id)
	metrics := filepath.Join(dir, "metrics.jsonl")
	rows, err := rundir.ReadMetrics(metrics)
	if err == nil && len(rows) >= steps {
		return rows[:steps], 0, nil
	}
	args := []string{"train"}
	if _, err := os.Stat(filepath.Join(dir, "config.yaml")); err == nil {
		args = append(args, "--resume", dir)
	}
	base := []string{
		"run.root=" + r.out, "run.id=" + id, fmt.Sprint("learner.steps=", steps), "eval.skip=true", "admin.listen=",
	}
	for _, s := range slices.Concat(base, set, r.extra) {
		args = append(args, "--set", s)
	}
	cpu, err := r.command(ctx, limit, id, args...)
	if err != nil {
		return nil, 0, err
	}
	if rows, err = rundir.ReadMetrics(metrics); err == nil && len(rows) < steps {
		err = fmt.Errorf("run %s ended after %d of %d steps", id, len(rows), steps)
	}
	return rows, cpu, err
}

// spread is the least, the middle and the greatest of some values.
type spread struct{ min, median, max float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{sorted[0], (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[n-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%.3f | %.3f | %.3f", s.min, s.median, s.max)
}
