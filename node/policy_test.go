package node

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/remote"
	"github.com/forager-rl/forager/rundir"
)

// policyFolder is the built-in policy as a folder.
func policyFolder(t *testing.T) string {
	t.Helper()
	model, l, err := loadPolicy("", TemplateAuto)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "policy")
	if err := savePolicy(dir, model, l); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lowRank trains adapters to the policy of a folder.
func lowRank(t *testing.T) Config {
	cfg := quick(t)
	cfg.Policy.Path = policyFolder(t)
	cfg.Trainer.LoRA.Rank = 4
	return cfg
}

// A folder is trained with adapters, resumed, and evaluated from its checkpoint.
func TestTrainAdapters(t *testing.T) {
	cfg := lowRank(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	latest, err := LatestPolicy(result.Dir)
	if err != nil {
		t.Fatal(err)
	}
	before, after := loaded(t, filepath.Join(result.Dir, startingPolicy)), loaded(t, latest)
	adapter, err := lm.LoadAdapter(filepath.Join(latest, "adapter"), before.Arch)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := adapter.Merge(before)
	if err != nil {
		t.Fatal(err)
	}
	if fingerprint(merged) != fingerprint(after) || fingerprint(before) == fingerprint(after) {
		t.Error("the checkpoint is not the starting policy with the adapter added")
	}
	if fingerprint(before) != fingerprint(loaded(t, cfg.Policy.Path)) {
		t.Error("the starting policy has changed")
	}

	cfg.Learner.Steps, cfg.Eval.Skip = 4, true
	if result, err = Train(ctx, cfg, TrainOptions{Logger: testLogger(t), Resume: result.Dir}); err != nil || steps(t, result.Dir) != 4 {
		t.Errorf("resumed: %v", err)
	}
	cfg.Trainer.LoRA.Rank = 8
	refuse(t, cfg, result.Dir, nil, "settings")
}

func loaded(t *testing.T, dir string) *lm.Model {
	t.Helper()
	m, err := lm.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Inference servers play, the learner here trains: adapters through vLLM, whole
// models through SGLang. Each token's log-probability is that of the version
// that it is recorded under, as the learner's ratio of 1 shows.
func TestTrainOnServers(t *testing.T) {
	for _, kind := range []remote.Kind{remote.VLLM, remote.SGLang} {
		t.Run(string(kind), func(t *testing.T) {
			cfg := lowRank(t)
			if kind == remote.SGLang {
				cfg.Trainer.LoRA.Rank = 0
			}
			server := newServer(t, kind, cfg.Policy.Path)
			cfg.Policy.Remote.URLs = []string{server.URL}
			cfg.Policy.Remote.WeightsDir = t.TempDir()
			cfg.Learner.Lag = 0
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			result, err := Train(ctx, cfg, TrainOptions{Logger: testLogger(t)})
			if err != nil {
				t.Fatal(err)
			}
			if n := steps(t, result.Dir); n != 3 {
				t.Errorf("%d steps, want 3", n)
			}
			checkRatios(t, result.Dir)
			versions := recordedVersions(t, result.Dir)
			for v := range forager.Version(3) {
				if versions[v] == 0 {
					t.Errorf("no token of version %d: %v", v, versions)
				}
			}
			kept, err := os.ReadDir(filepath.Join(cfg.Policy.Remote.WeightsDir, "quick"))
			if err != nil || len(kept) != 2 {
				t.Errorf("%d versions are kept, want 2 (%v)", len(kept), err)
			}

			most := map[remote.Kind]int{remote.VLLM: 4, remote.SGLang: 2}[kind] // with the base; while one comes
			if got := server.mostHeld(); got > most {
				t.Errorf("the server held %d sets of weights at once, want at most %d", got, most)
			}

			// The servers' policy can be measured, too.
			if _, err := Evaluate(ctx, cfg, EvaluateOptions{Logger: testLogger(t)}); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkRatios wants importance ratios of 1 where all tokens are of the weights
// that are trained.
func checkRatios(t *testing.T, dir string) {
	t.Helper()
	rows, err := rundir.ReadMetrics(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].Values["lag_max"] != 0 {
		t.Error("the first step has tokens of another version than the first")
	}
	for _, r := range rows {
		if most := r.Values["ratio_max"]; r.Values["lag_max"] == 0 && math.Abs(most-1) > 1e-4 {
			t.Errorf("step %d: ratio up to %g, want 1", r.Step, most)
		}
	}
}

// recordedVersions counts the tokens of each version in the archive of a run.
func recordedVersions(t *testing.T, dir string) map[forager.Version]int {
	t.Helper()
	counts := map[forager.Version]int{}
	files, err := filepath.Glob(filepath.Join(dir, "rollouts", "*.arrow"))
	if err != nil || len(files) == 0 {
		t.Fatal("no archive", err)
	}
	for _, file := range files {
		groups, err := batch.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, r := range g.Rollouts {
				for _, v := range r.Versions {
					counts[v.Version] += v.Len()
				}
			}
		}
	}
	return counts
}

func TestImpossibleServers(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*Config)
		words []string
	}{
		"no tokenizer": {func(c *Config) { c.Policy.Path = "" }, []string{"policy.path"}},
		"no folder":    {func(c *Config) { c.Policy.Remote.WeightsDir = "" }, []string{"policy.remote.weights_dir"}},
		"whole models": {func(c *Config) { c.Policy.Remote.Kind, c.Trainer.LoRA.Rank = remote.VLLM, 0 }, []string{"trainer.lora.rank"}},
		"found out":    {func(c *Config) { c.Trainer.LoRA.Rank = 0 }, []string{"vLLM", "trainer.lora.rank"}},
		"fixed":        {func(c *Config) { c.Policy.Remote.Kind = remote.LlamaCpp }, []string{"llamacpp", "forager eval"}},
		"nobody there": {func(c *Config) { c.Policy.Remote.URLs = []string{"http://127.0.0.1:1"} }, []string{"http://127.0.0.1:1", "start the server"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := lowRank(t)
			cfg.Policy.Remote.URLs = []string{newServer(t, remote.VLLM, cfg.Policy.Path).URL}
			cfg.Policy.Remote.WeightsDir = t.TempDir()
			cfg.Policy.Remote.StartTimeout = 200 * time.Millisecond
			c.set(&cfg)
			refuse(t, cfg, "", nil, c.words...)
			if entries, err := os.ReadDir(cfg.Run.Root); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v (%v)", entries, err)
			}
		})
	}
}

func TestObjectStoreTooSmall(t *testing.T) {
	cfg := lowRank(t)
	cfg.Bus.MaxObjects = 8 << 20
	cfg.Trainer.LoRA.Rank = 0
	refuse(t, cfg, "", nil, "bus.max_objects", "trainer.lora.rank")
}

// Engines take one version after another in the form of the run's first.
func TestWeightsDecoder(t *testing.T) {
	base, l, err := builtin.Load()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := base.Encode()
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := lm.NewAdapter(base.Arch, lm.LoRAConfig{Rank: 2, Alpha: 1, Targets: []string{"q_proj"}})
	if err != nil {
		t.Fatal(err)
	}
	change, err := adapter.Encode(fingerprint(base))
	if err != nil {
		t.Fatal(err)
	}
	for name, object := range map[string][]byte{"adapters": change, "whole models": whole} {
		t.Run(name, func(t *testing.T) {
			decoder := weightsDecoder{base: base}
			model, err := decoder.decode(object)
			if err != nil {
				t.Fatal(err)
			}
			if kept := decoder.base != nil; kept != (name == "adapters") || kept != (decoder.mark != "") {
				t.Errorf("keeps the base: %v, its fingerprint is %q", kept, decoder.mark)
			}
			s, err := newEngines(1, model, 1, l, lm.DefaultEngineConfig())
			if err != nil {
				t.Fatal(err)
			}
			s.decoder = decoder
			if err := s.take(t.Context(), 2, object); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("another base", func(t *testing.T) {
		other := base.Clone()
		other.Weights[0]++
		decoder := weightsDecoder{base: other}
		if _, err := decoder.decode(change); !errors.Is(err, forager.ErrArchitecture) || !strings.Contains(err.Error(), "policy.path") {
			t.Error(err)
		}
	})
}
