package lm

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func TestFreshAdapterChangesNothing(t *testing.T) {
	m := loud(t, family()["qwen3"], 7)
	seqs := randomSequences(3, 37, 30, 40)
	plain, err := newTrainer(t, m, nil).Score(seqs)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrainer(t, m, func(c *TrainerConfig) { c.LoRA.Rank = 4 })
	fresh, err := tr.Score(seqs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range seqs {
		if !slices.Equal(plain[i].Logprobs, fresh[i].Logprobs) {
			t.Fatalf("sequence %d: log-probabilities changed", i)
		}
	}
	bound, reached := 1/math.Sqrt(16), 0.0 // A's distribution, of the first projection
	for _, v := range tr.adapter.Weights[:4*16] {
		reached = max(reached, math.Abs(float64(v)))
	}
	if reached > bound || reached < 0.8*bound {
		t.Errorf("A reaches to %g, want nearly %g", reached, bound)
	}
}

// TestMergedAdapter trains an adapter for a while and compares the low-rank
// forward pass with the merged model's.
func TestMergedAdapter(t *testing.T) {
	for name, arch := range family() {
		t.Run(name, func(t *testing.T) {
			seqs := randomSequences(9, 37, 40, 60)
			tr := newTrainer(t, loud(t, arch, 7), func(c *TrainerConfig) { c.LoRA.Rank, c.LoRA.Targets = 2, []string{"k_proj", "down_proj", "q_proj"} })
			before, _ := tr.Score(seqs)
			for range 5 {
				testLoss{temperature: 1}.train(t, tr, seqs)
				tr.Update(1e-2)
			}
			after, err := tr.Score(seqs)
			if err != nil {
				t.Fatal(err)
			}
			merged, err := newTrainer(t, tr.Model(), nil).Score(seqs)
			if err != nil {
				t.Fatal(err)
			}
			moved := 0.0
			for i := range seqs {
				for j, v := range after[i].Logprobs {
					moved = max(moved, math.Abs(float64(v-before[i].Logprobs[j])))
					if diff := math.Abs(float64(v - merged[i].Logprobs[j])); diff > 2e-4 {
						t.Fatalf("sequence %d, position %d: %g with the adapter, %g merged", i, j, v, merged[i].Logprobs[j])
					}
				}
			}
			if moved < 0.1 {
				t.Errorf("training moved log-probabilities by %g at most", moved)
			}
		})
	}
}

func TestAdapterFiles(t *testing.T) {
	dir := t.TempDir()
	arch := family()["qwen2"]
	a, err := NewAdapter(arch, LoRAConfig{Rank: 3, Alpha: 6, Targets: []string{"v_proj", "o_proj", "up_proj"}})
	if err != nil {
		t.Fatal(err)
	}
	shake(a, 1)
	if err := a.Save(dir, "base/model"); err != nil {
		t.Fatal(err)
	}
	b, err := LoadAdapter(dir, arch)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Weights, b.Weights) || b.Config.Rank != 3 || b.Config.Alpha != 6 {
		t.Error("weights or configuration were lost")
	}
	list := a.tensors()
	if list[0].name != "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight" || !slices.Equal(list[0].shape, []int{3, 16}) {
		t.Errorf("the first tensor is %s %v", list[0].name, list[0].shape)
	}
	if list[1].name != "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight" || !slices.Equal(list[1].shape, []int{12, 3}) {
		t.Errorf("the second tensor is %s %v", list[1].name, list[1].shape)
	}

	path := filepath.Join(dir, adapterConfigFile)
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range map[string]any{
		"peft_type": "IA3", "use_dora": true, "use_rslora": true, "bias": "all", "rank_pattern": map[string]int{"q_proj": 4},
		"modules_to_save": []string{"lm_head"}, "target_modules": []string{"lm_head"}, "layers_to_transform": []int{0}, "r": 4,
	} {
		t.Run(field, func(t *testing.T) {
			var fields map[string]any
			if err := json.Unmarshal(config, &fields); err != nil {
				t.Fatal(err)
			}
			fields[field] = value
			changed, _ := json.Marshal(fields)
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadAdapter(dir, arch)
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want an error that names the file", err)
			}
			if field != "r" && !errors.Is(err, forager.ErrArchitecture) {
				t.Errorf("got %v, want ErrArchitecture", err)
			}
		})
	}
}

func TestResume(t *testing.T) {
	for name, rank := range map[string]int{"model": 0, "adapter": 3} {
		t.Run(name, func(t *testing.T) {
			dir, seqs := t.TempDir(), randomSequences(9, 37, 40, 60)
			lora := func(c *TrainerConfig) { c.LoRA.Rank = rank }
			step := func(tr *Trainer) {
				testLoss{temperature: 1}.train(t, tr, seqs)
				tr.Update(1e-3)
			}
			base := loud(t, family()["llama"], 3)
			a := newTrainer(t, base.Clone(), lora)
			for range 3 {
				step(a)
			}
			if err := a.Save(dir); err != nil {
				t.Fatal(err)
			}
			cfg := a.cfg
			b, err := ResumeTrainer(dir, base, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			saved, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(saved.Weights, a.Model().Weights) || !slices.Equal(saved.Weights, b.Model().Weights) {
				t.Error("the checkpoint's model is not the trained one")
			}
			for range 2 {
				step(a)
				step(b)
			}
			if !slices.Equal(a.Model().Weights, b.Model().Weights) {
				t.Error("weights differ after resume")
			}
			cfg.LoRA.Rank += 2
			if other, err := ResumeTrainer(dir, base, cfg); err == nil {
				other.Close()
				t.Error("a checkpoint of another rank was taken")
			}
		})
	}
}
