package lm

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/safetensors"
)

// TestSaveAndLoad stores models of every kind whole, in shards and rounded.
func TestSaveAndLoad(t *testing.T) {
	for _, name := range []string{"llama", "smollm", "qwen2", "qwen3"} {
		m := load(t, filepath.Join("testdata", name))
		dir := t.TempDir()
		for i, options := range []SaveOptions{{}, {ShardBytes: 30_000}, {BFloat16: true}, {}} {
			if err := m.SaveAs(dir, options); err != nil {
				t.Fatal(err)
			}
			got := load(t, dir)
			if !got.Arch.sameShape(m.Arch) || !options.BFloat16 && !slices.Equal(got.Weights, m.Weights) {
				t.Errorf("%s, form %d: came back as %v", name, i, got.Arch)
			}
			if diff := maxDifference(t, got.Weights, m.Weights); options.BFloat16 && (diff == 0 || diff > 0x1p-7) {
				t.Errorf("%s: bfloat16 changed weights by %g", name, diff)
			}
			var index shardIndex
			if data, err := os.ReadFile(filepath.Join(dir, indexFile)); options.ShardBytes > 0 {
				if err != nil || json.Unmarshal(data, &index) != nil || len(index.WeightMap) != len(m.Arch.tensors()) ||
					index.Metadata["total_size"] != float64(4*len(m.Weights)) {
					t.Errorf("%s: index %v %v", name, err, index)
				}
			}
			_, whole := os.Stat(filepath.Join(dir, weightsFile))
			_, cut := os.Stat(filepath.Join(dir, indexFile))
			if (whole == nil) == (cut == nil) {
				t.Errorf("%s, form %d: the folder holds both forms or none", name, i)
			}
		}
	}
}

// contents are the files of a checkpoint.
type contents struct {
	config  map[string]any
	weights map[string]safetensors.Tensor
	shards  map[string]string // when not nil, the index; two shards "a.safetensors" and "b.safetensors"
}

func (c contents) write(t *testing.T, dir string) {
	t.Helper()
	config, err := json.Marshal(c.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), config, 0o644); err != nil {
		t.Fatal(err)
	}
	if c.shards == nil {
		if err := safetensors.WriteFile(filepath.Join(dir, weightsFile), slices.Collect(maps.Values(c.weights)), nil); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := writeJSON(filepath.Join(dir, indexFile), shardIndex{WeightMap: c.shards}); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []string{"a.safetensors", "b.safetensors"} {
		var part []safetensors.Tensor
		for name, tensor := range c.weights {
			if c.shards[name] == shard {
				part = append(part, tensor)
			}
		}
		if err := safetensors.WriteFile(filepath.Join(dir, shard), part, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLoadFails damages checkpoints. Errors must name what is wrong and where.
func TestLoadFails(t *testing.T) {
	const down, head, dirName = "model.layers.1.mlp.down_proj.weight", "lm_head.weight", "checkpoint"
	zeros := func(name string, shape ...int) safetensors.Tensor {
		n := 1
		for _, s := range shape {
			n *= s
		}
		return safetensors.FromFloat32(name, make([]float32, n), shape...)
	}
	half := func(c contents) { // in two shards
		for i, name := range slices.Sorted(maps.Keys(c.weights)) {
			c.shards[name] = []string{"a.safetensors", "b.safetensors"}[i%2]
		}
	}
	cases := map[string]struct {
		damage func(c contents)
		after  func(t *testing.T, dir string)
		is     error
		says   []string
	}{
		"missing tensor":     {damage: func(c contents) { delete(c.weights, down) }, is: forager.ErrNotFound, says: []string{down, weightsFile}},
		"wrong shape":        {damage: func(c contents) { c.weights[down] = zeros(down, 31, 40) }, is: forager.ErrArchitecture, says: []string{down, weightsFile, "[31 40]", "[32 40]"}},
		"transposed":         {damage: func(c contents) { c.weights[down] = zeros(down, 40, 32) }, is: forager.ErrArchitecture, says: []string{down, "[40 32]"}},
		"wrong dtype":        {damage: func(c contents) { c.weights[down] = safetensors.FromUint64(down, make([]uint64, 32*40), 32, 40) }, is: forager.ErrArchitecture, says: []string{down, weightsFile, "U64"}},
		"untied, no head":    {damage: func(c contents) { c.config["tie_word_embeddings"] = false }, is: forager.ErrNotFound, says: []string{head, weightsFile, "tie_word_embeddings"}},
		"tied, with head":    {damage: func(c contents) { c.weights[head] = zeros(head, 80, 32) }},
		"rotary tables":      {damage: func(c contents) { n := "model.layers.0.self_attn.rotary_emb.inv_freq"; c.weights[n] = zeros(n, 4) }},
		"unexpected bias":    {damage: func(c contents) { n := "model.layers.0.self_attn.q_proj.bias"; c.weights[n] = zeros(n, 32) }, is: forager.ErrArchitecture, says: []string{"model.layers.0.self_attn.q_proj.bias", dirName}},
		"one layer more":     {damage: func(c contents) { c.config["num_hidden_layers"] = 3 }, is: forager.ErrNotFound, says: []string{"model.layers.2."}},
		"one layer less":     {damage: func(c contents) { c.config["num_hidden_layers"] = 1 }, is: forager.ErrArchitecture, says: []string{"model.layers.1.", dirName}},
		"huge vocabulary":    {damage: func(c contents) { c.config["vocab_size"] = 1 << 24 }, is: forager.ErrArchitecture, says: []string{"model.embed_tokens.weight"}},
		"huge depth":         {damage: func(c contents) { c.config["num_hidden_layers"] = 1 << 24 }, is: forager.ErrArchitecture, says: []string{"layers", dirName}},
		"unknown model":      {damage: func(c contents) { c.config["model_type"] = "mamba" }, is: forager.ErrArchitecture, says: []string{"mamba", configFile}},
		"truncated":          {after: func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, weightsFile)) }, is: forager.ErrCorrupt, says: []string{weightsFile, "truncated"}},
		"no weights":         {after: func(t *testing.T, dir string) { discard(t, filepath.Join(dir, weightsFile)) }, is: os.ErrNotExist, says: []string{weightsFile, indexFile}},
		"no config":          {after: func(t *testing.T, dir string) { discard(t, filepath.Join(dir, configFile)) }, is: os.ErrNotExist, says: []string{configFile}},
		"shards":             {damage: half},
		"missing shard":      {damage: half, after: func(t *testing.T, dir string) { discard(t, filepath.Join(dir, "b.safetensors")) }, is: os.ErrNotExist, says: []string{"b.safetensors", indexFile, "tensor"}},
		"truncated shard":    {damage: half, after: func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "b.safetensors")) }, is: forager.ErrCorrupt, says: []string{"b.safetensors"}},
		"not in the index":   {damage: func(c contents) { half(c); delete(c.shards, down) }, is: forager.ErrNotFound, says: []string{down, indexFile}},
		"not in its shard":   {damage: func(c contents) { half(c); delete(c.weights, down) }, is: forager.ErrNotFound, says: []string{down, ".safetensors"}},
		"shard outside":      {damage: func(c contents) { half(c); c.shards[down] = "../b.safetensors" }, is: forager.ErrCorrupt, says: []string{down, "../b.safetensors"}},
		"absolute shard":     {damage: func(c contents) { half(c); c.shards[down] = "/etc/passwd" }, is: forager.ErrCorrupt, says: []string{down, "/etc/passwd"}},
		"shard without name": {damage: func(c contents) { half(c); c.shards[down] = "" }, is: forager.ErrCorrupt, says: []string{down, indexFile}},
		"broken index":       {damage: half, after: func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, indexFile)) }, is: forager.ErrCorrupt, says: []string{indexFile}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), dirName)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			files := contents{weights: map[string]safetensors.Tensor{}}
			if err := json.Unmarshal(readFile(t, "testdata/smollm/config.json"), &files.config); err != nil {
				t.Fatal(err)
			}
			m := load(t, "testdata/smollm")
			for _, tensor := range m.named(false) {
				files.weights[tensor.Name] = tensor
			}
			if strings.Contains(name, "shard") || strings.Contains(name, "index") {
				files.shards = map[string]string{}
			}
			if c.damage != nil {
				c.damage(files)
			}
			files.write(t, dir)
			if c.after != nil {
				c.after(t, dir)
			}
			got, err := Load(dir)
			if !errors.Is(err, c.is) {
				t.Fatalf("error %v, want %v", err, c.is)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %q", err, part)
				}
			}
			if c.is == nil && !slices.Equal(got.Weights, m.Weights) {
				t.Error("other weights")
			}
		})
	}
}

func TestLoadOfNothing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("missing path: %v", err)
	}
	if _, err := Load("testdata/smollm/model.safetensors"); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), ".gguf") {
		t.Errorf("a file that is not GGUF: %v", err)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	data := readFile(t, path)
	if err := os.WriteFile(path, data[:len(data)-7], 0o644); err != nil {
		t.Fatal(err)
	}
}

func discard(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzRead: whatever the two files hold, reading them ends without a crash and
// without much memory, and a model that was read is whole.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"smollm", "qwen2", "bfloat16"} {
		f.Add(readFile(f, "testdata/"+name+"/config.json"), readFile(f, "testdata/"+name+"/model.safetensors"))
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		m, err := Read(config, bytes.NewReader(weights), int64(len(weights)))
		if err == nil && (len(m.Weights) != m.Arch.Parameters() || 2*len(m.Weights) > len(weights)) {
			t.Fatalf("%v from %d bytes", m.Arch, len(weights))
		}
	})
}
