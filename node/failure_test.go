package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/rundir"
)

// refuse runs training that must fail with one clear line.
func refuse(t *testing.T, cfg Config, resume string, want error, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t), Resume: resume})
	if err == nil {
		t.Fatal("training started")
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has several lines: %q", err)
	}
}

func TestRunDirectoryInUse(t *testing.T) {
	cfg := quick(t)
	dir, err := rundir.Create(cfg.Run.Root, cfg.Run.ID)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := dir.Lock("learner")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock() }()
	refuse(t, cfg, dir.Path(), forager.ErrInUse)
	refuse(t, cfg, "", forager.ErrInUse, "--resume") // a new run of the same name
}

func TestPortInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, set := range map[string]func(*Config){
		"retriever": func(c *Config) { c.Search.Server.Listen = listener.Addr().String() },
		"admin":     func(c *Config) { c.Admin.Listen = listener.Addr().String() },
		"nats":      func(c *Config) { c.Bus.Listen = listener.Addr().String() },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quick(t)
			set(&cfg)
			refuse(t, cfg, "", forager.ErrInUse, listener.Addr().String())
		})
	}
}

func TestBadDataLeavesNoRunDirectory(t *testing.T) {
	cfg := quick(t)
	cfg.Data.Tasks = filepath.Join(t.TempDir(), "tasks.jsonl")
	cfg.Data.Corpus = filepath.Join(t.TempDir(), "corpus.jsonl")
	if err := os.WriteFile(cfg.Data.Tasks, []byte(`{"id":"a","question":"q?","answers":[]}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refuse(t, cfg, "", nil, "tasks.jsonl:1", "answer")
	if entries, err := os.ReadDir(cfg.Run.Root); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}

func TestNATSThatDoesNotAnswer(t *testing.T) {
	cfg := quick(t)
	cfg.Bus.URL = "nats://127.0.0.1:1"
	cfg.Bus.ConnectTimeout, cfg.Admin.StartTimeout = 200*time.Millisecond, 200*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := RunRoles(ctx, cfg, RoleOptions{Roles: []forager.Role{forager.RoleActor}, Dir: filepath.Join(t.TempDir(), "run"), Logger: testLogger(t)})
	if err == nil || !strings.Contains(err.Error(), "nats://127.0.0.1:1") {
		t.Errorf("error is %v", err)
	}
}

// TestResumeIsGuarded finishes a run and then resumes it in ways that must not
// work, and in one that must.
func TestResumeIsGuarded(t *testing.T) {
	cfg := quick(t)
	cfg.Learner.Steps = 2
	cfg.Eval.Skip = true
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}

	other := cfg
	other.Run.Seed++
	refuse(t, other, first.Dir, cluster.ErrOtherRun)

	checkpoints := filepath.Join(first.Dir, "checkpoints")
	newest := filepath.Join(checkpoints, "step-00000002-e1")
	weights := filepath.Join(newest, "model.safetensors")
	data, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(weights, data[:len(data)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	// The newest checkpoint is damaged: the one before takes its place, and the
	// step is done again.
	cfg.Learner.Steps = 3
	again, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t), Resume: first.Dir})
	if err != nil {
		t.Fatal(err)
	}
	if n := steps(t, again.Dir); n != 3 {
		t.Errorf("%d steps, want 3", n)
	}

	// All checkpoints damaged is an error, not a fresh start.
	list, err := filepath.Glob(filepath.Join(checkpoints, "step-*", "model.safetensors"))
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, path := range list {
		if err := os.WriteFile(path, data[:len(data)/2], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, cfg, first.Dir, forager.ErrCorrupt)
}
