package node

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/forager-rl/forager/rundir"
)

// quick is a run of a few small steps.
func quick(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Run.Root = t.TempDir()
	cfg.Run.ID = "quick"
	cfg.Learner.Steps = 3
	cfg.Learner.GroupsPerStep = 2
	cfg.Learner.MaxGroupsPerStep = 6
	cfg.Learner.GroupSize = 4
	cfg.Eval.Limit = 12
	cfg.Admin.Listen = ""
	return cfg
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// steps reads the step numbers of a run and fails on a gap or a repeat.
func steps(t *testing.T, dir string) uint64 {
	t.Helper()
	d, err := rundir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := rundir.ReadMetrics(d.MetricsPath())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if r.Step != uint64(i+1) {
			t.Fatalf("row %d of metrics is of step %d", i+1, r.Step)
		}
	}
	return uint64(len(rows))
}

func TestTrainInOneProcess(t *testing.T) {
	cfg := quick(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Finished || result.Before == nil || result.After == nil || result.After.Questions != 12 {
		t.Errorf("finished %v, reports %v and %v", result.Finished, result.Before, result.After)
	}
	if n := steps(t, result.Dir); n != 3 {
		t.Errorf("%d steps in metrics, want 3", n)
	}
	if _, err := os.Stat(result.Report); err != nil {
		t.Error(err)
	}

	// More steps continue where the run ended.
	cfg.Learner.Steps = 5
	cfg.Eval.Skip = true
	result, err = Train(ctx, cfg, TrainOptions{Logger: testLogger(t), Resume: result.Dir})
	if err != nil {
		t.Fatal(err)
	}
	if n := steps(t, result.Dir); n != 5 || !result.Finished {
		t.Errorf("%d steps in metrics, finished %v; want 5 and true", n, result.Finished)
	}
}
