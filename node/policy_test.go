package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/remote"
	"github.com/forager-rl/forager/policy/tokenizer"
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

// server speaks vLLM's or SGLang's protocol over native engines, one for each
// set of weights, so that what actors record can be compared with the learner.
type server struct {
	*httptest.Server
	t     *testing.T
	kind  remote.Kind
	base  *lm.Model
	tok   *tokenizer.Tokenizer
	ctx   context.Context //nolint:containedctx // of the engines
	wait  sync.WaitGroup
	mu    sync.Mutex
	named map[string]*lm.Engine
	label string
}

func newServer(t *testing.T, kind remote.Kind, folder string) *server {
	t.Helper()
	base, l, err := loadPolicy(folder, TemplateAuto)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{t: t, kind: kind, base: base, tok: l.tokenizer, ctx: ctx, named: map[string]*lm.Engine{}, label: "default"}
	if err := s.add("tiny", base); err != nil {
		t.Fatal(err)
	}
	s.named["default"] = s.named["tiny"]
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		cancel()
		s.wait.Wait()
	})
	return s
}

func (s *server) add(name string, m *lm.Model) error {
	engine, err := lm.NewEngine(m, 0, s.tok, lm.DefaultEngineConfig())
	if err != nil {
		return err
	}
	s.wait.Go(func() { _ = engine.Run(s.ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named[name] = engine
	return nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		LoRAName, LoRAPath string
		Model              string
		Prompt             []int32
		MaxTokens          int     `json:"max_tokens"`
		Temperature        float32 `json:"temperature"`
		Stop               []string
		Seed               uint64
		Name               string  `json:"lora_name"`
		Path               string  `json:"lora_path"`
		InputIDs           []int32 `json:"input_ids"`
		TopLogprobs        int     `json:"top_logprobs_num"`
		ModelPath          string  `json:"model_path"`
		WeightVersion      string  `json:"weight_version"`
		Sampling           struct {
			MaxTokens   int     `json:"max_new_tokens"`
			Temperature float32 `json:"temperature"`
			Stop        []string
		} `json:"sampling_params"`
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	fail := func(err error) { http.Error(w, err.Error(), http.StatusInternalServerError) }
	reply := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch r.URL.Path {
	case "/v1/models":
		reply(map[string]any{"data": []any{map[string]any{"id": "tiny", "owned_by": s.kind, "max_model_len": s.base.Arch.ContextLength}}})
	case "/v1/load_lora_adapter":
		adapter, err := lm.LoadAdapter(body.Path, s.base.Arch)
		if err != nil {
			fail(err)
			return
		}
		merged, err := adapter.Merge(s.base)
		if err == nil {
			err = s.add(body.Name, merged)
		}
		if err != nil {
			fail(err)
		}
	case "/v1/unload_lora_adapter":
	case "/model_info":
		reply(map[string]any{"weight_version": s.current()})
	case "/update_weights_from_disk":
		m, _, err := loadPolicy(body.ModelPath, TemplateAuto)
		if err == nil {
			err = s.add(body.WeightVersion, m)
		}
		if err != nil {
			fail(err)
			return
		}
		s.mu.Lock()
		s.label = body.WeightVersion
		s.mu.Unlock()
		reply(map[string]any{"success": true})
	case "/v1/completions":
		done, err := s.complete(body.Model, policy.Request{
			Context: body.Prompt, MaxTokens: body.MaxTokens, Temperature: body.Temperature, Stop: body.Stop, Seed: body.Seed,
		})
		if err != nil {
			fail(err)
			return
		}
		stop := map[policy.StopReason]any{policy.StopString: "a stop string"}[done.Stop]
		finish := map[bool]string{true: "length", false: "stop"}[done.Stop == policy.StopLength]
		top := make([]map[string]float32, len(done.Tokens))
		for i, p := range done.Logprobs {
			top[i] = map[string]float32{"x": p}
		}
		reply(map[string]any{"model": body.Model, "choices": []any{map[string]any{
			"finish_reason": finish, "stop_reason": stop, "token_ids": done.Tokens, "prompt_token_ids": body.Prompt,
			"logprobs": map[string]any{"token_logprobs": done.Logprobs, "top_logprobs": top},
		}}})
	case "/generate":
		label := s.current()
		done, err := s.complete(label, policy.Request{
			Context: body.InputIDs, MaxTokens: body.Sampling.MaxTokens, Temperature: body.Sampling.Temperature, Stop: body.Sampling.Stop,
			Seed: uint64(time.Now().UnixNano()),
		})
		if err != nil {
			fail(err)
			return
		}
		var pairs [][]any
		for i, id := range done.Tokens {
			pairs = append(pairs, []any{done.Logprobs[i], id, nil})
		}
		finish := map[string]any{"type": "stop", "matched": 0}
		if done.Stop == policy.StopLength {
			finish = map[string]any{"type": "length"}
		}
		reply(map[string]any{"meta_info": map[string]any{
			"finish_reason": finish, "output_token_logprobs": pairs, "output_top_logprobs": [][][]any{pairs}, "weight_version": label,
		}})
	default:
		http.NotFound(w, r)
	}
}

func (s *server) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.label
}

func (s *server) complete(name string, req policy.Request) (policy.Completion, error) {
	s.mu.Lock()
	engine := s.named[name]
	s.mu.Unlock()
	if engine == nil {
		return policy.Completion{}, fmt.Errorf("no weights %q", name)
	}
	return engine.Generate(s.ctx, req)
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
			cfg.Policy.Remote.URLs = []string{newServer(t, kind, cfg.Policy.Path).URL}
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

func TestAdapterOfAnotherModel(t *testing.T) {
	base, _, err := builtin.Load()
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := lm.NewAdapter(base.Arch, lm.LoRAConfig{Rank: 2, Alpha: 1, Targets: []string{"q_proj"}})
	if err != nil {
		t.Fatal(err)
	}
	object, err := adapter.Encode(fingerprint(base))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeWeights(object, base, fingerprint(base)); err != nil {
		t.Error(err)
	}
	base.Weights[0]++
	if _, err := decodeWeights(object, base, fingerprint(base)); !errors.Is(err, forager.ErrArchitecture) || !strings.Contains(err.Error(), "policy.path") {
		t.Errorf("another base: %v", err)
	}
}
