package lm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
	"github.com/forager-rl/forager/policy/safetensors"
)

// The models in testdata and what is expected of them were written by Hugging
// Face's transformers and PEFT (bench/fixtures/make.py).

// golden is the contents of an expected.safetensors: sequences with the weight
// of each log-probability in the loss, the logits, and the loss's gradients.
type golden struct {
	file    *safetensors.File
	tokens  [][]int32
	weights [][]float32
	logits  [][]float32
}

func readGolden(t testing.TB, path string) golden {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	g := golden{file: f}
	for i := 0; slices.Contains(f.Names(), fmt.Sprintf("tokens.%d", i)); i++ {
		raw, err1 := f.Bytes(fmt.Sprintf("tokens.%d", i))
		tokens := make([]int32, len(raw)/4)
		if _, err := binary.Decode(raw, binary.LittleEndian, tokens); err != nil {
			t.Fatal(err)
		}
		weights, err2 := f.Float32(fmt.Sprintf("weights.%d", i), len(tokens))
		logits, err3 := f.Float32(fmt.Sprintf("logits.%d", i))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		g.tokens, g.weights, g.logits = append(g.tokens, tokens), append(g.weights, weights), append(g.logits, logits)
	}
	if len(g.tokens) == 0 {
		t.Fatalf("%s holds no sequences", path)
	}
	return g
}

// checkLogits compares the logits of every sequence.
func (g golden) checkLogits(t *testing.T, tr *Trainer) {
	t.Helper()
	worst := 0.0
	for i, tokens := range g.tokens {
		got, err := tr.Logits(tokens)
		if err != nil {
			t.Fatal(err)
		}
		diff := maxDifference(t, got, g.logits[i])
		worst = max(worst, diff)
		if !(diff <= 1e-4) {
			t.Errorf("sequence %d: logits differ by %.3g", i, diff)
		}
	}
	t.Logf("logits differ by at most %.2g", worst)
}

// accumulate adds the gradient of the golden loss to those of the trainer.
func (g golden) accumulate(t *testing.T, tr *Trainer) {
	t.Helper()
	var seqs []Sequence
	for i, tokens := range g.tokens {
		s := Sequence{Tokens: tokens, Mask: make([]bool, len(tokens))}
		for j, w := range g.weights[i] {
			s.Mask[j] = w != 0
		}
		seqs = append(seqs, s)
	}
	if err := tr.Accumulate(seqs, func(i int, _, grad []float32) { copy(grad, g.weights[i]) }); err != nil {
		t.Fatal(err)
	}
}

// checkGradient compares one gradient with that of autograd and returns the
// norm of the difference relative to it.
func (g golden) checkGradient(t *testing.T, name string, got []float32) float64 {
	t.Helper()
	want, err := g.file.Float32("grad." + name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%s: gradient of %d numbers, want %d", name, len(got), len(want))
	}
	var diff, size float64
	for i := range want {
		diff += math.Pow(float64(got[i]-want[i]), 2)
		size += math.Pow(float64(want[i]), 2)
	}
	relative := math.Sqrt(diff / size)
	if !(relative <= 1e-4) {
		t.Errorf("%s: gradient off by %.3g relative, norm %.3g", name, relative, math.Sqrt(size))
	}
	return relative
}

func maxDifference(t testing.TB, got, want []float32) (most float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d numbers, want %d", len(got), len(want))
	}
	for i := range want {
		d := math.Abs(float64(got[i] - want[i]))
		if math.IsNaN(d) || d > most {
			most = d
		}
	}
	return most
}

func load(t testing.TB, path string) *Model {
	t.Helper()
	m, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestGoldenModels compares logits and every gradient with PyTorch.
func TestGoldenModels(t *testing.T) {
	for _, name := range []string{"llama", "smollm", "qwen2", "qwen3"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			g := readGolden(t, filepath.Join(dir, "expected.safetensors"))
			m := load(t, dir)
			tr := newTrainer(t, m, nil)
			g.checkLogits(t, tr)
			g.accumulate(t, tr)
			worst := 0.0
			for _, tensor := range m.Arch.tensors() {
				worst = max(worst, g.checkGradient(t, tensor.name, tr.gradients[tensor.offset:][:tensor.len()]))
			}
			t.Logf("gradients off by at most %.2g relative", worst)
		})
	}
}

// TestGoldenAdapter loads PEFT's files and compares logits, beside the model
// and merged into it, and the gradients of every A and B.
func TestGoldenAdapter(t *testing.T) {
	g := readGolden(t, "testdata/lora/expected.safetensors")
	m := load(t, "testdata/qwen2")
	adapter, err := LoadAdapter("testdata/lora", m.Arch)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := adapter.Merge(m)
	if err != nil {
		t.Fatal(err)
	}
	g.checkLogits(t, newTrainer(t, merged, nil))
	tr := newTrainer(t, m, func(c *TrainerConfig) { c.LoRA = adapter.Config })
	if err := tr.adapt(adapter); err != nil {
		t.Fatal(err)
	}
	g.checkLogits(t, tr)
	g.accumulate(t, tr)
	worst := 0.0
	for _, tensor := range adapter.tensors() {
		worst = max(worst, g.checkGradient(t, tensor.name, tr.gradients[tensor.offset:][:tensor.len()]))
	}
	t.Logf("gradients off by at most %.2g relative", worst)
}

// TestGoldenRopeScaling runs the qwen3 weights with other configurations.
func TestGoldenRopeScaling(t *testing.T) {
	for _, name := range []string{"linear", "yarn"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyFile(t, "testdata/qwen3/model.safetensors", filepath.Join(dir, weightsFile))
			copyFile(t, "testdata/qwen3/config."+name+".json", filepath.Join(dir, configFile))
			g := readGolden(t, "testdata/qwen3/expected."+name+".safetensors")
			g.checkLogits(t, newTrainer(t, load(t, dir), nil))
		})
	}
}

// TestGoldenForms loads the same model from shards, F16 and BF16.
func TestGoldenForms(t *testing.T) {
	whole := load(t, "testdata/smollm")
	if sharded := load(t, "testdata/sharded"); !slices.Equal(sharded.Weights, whole.Weights) {
		t.Error("the shards hold other weights")
	}
	for _, name := range []string{"float16", "bfloat16"} {
		dir := filepath.Join("testdata", name)
		m := load(t, dir)
		if m.Arch.TorchDType != name {
			t.Errorf("%s: dtype %s", name, m.Arch.TorchDType)
		}
		readGolden(t, filepath.Join(dir, "expected.safetensors")).checkLogits(t, newTrainer(t, m, nil))
	}
}

// TestGoldenGGUF loads the same models as llama.cpp's converter stores them,
// the matrices of all but the first in F16.
func TestGoldenGGUF(t *testing.T) {
	for _, name := range []string{"llama", "smollm", "qwen2", "qwen3"} {
		t.Run(name, func(t *testing.T) {
			want, got := load(t, filepath.Join("testdata", name)), load(t, filepath.Join("testdata", name, "model.gguf"))
			if !got.Arch.sameShape(want.Arch) {
				t.Fatalf("architecture %v, want %v", got.Arch, want.Arch)
			}
			if !slices.Equal(got.Arch.EOSTokenID, want.Arch.EOSTokenID) || !slices.Equal(got.Arch.BOSTokenID, want.Arch.BOSTokenID) {
				t.Errorf("special tokens %v %v", got.Arch.BOSTokenID, got.Arch.EOSTokenID)
			}
			for _, tensor := range want.Arch.tensors() {
				for i, w := range want.Weights[tensor.offset:][:tensor.len()] {
					v := got.Weights[tensor.offset+i]
					near := name != "llama" && len(tensor.shape) > 1 && math.Abs(float64(v-w)) <= 0x1p-11*math.Abs(float64(w))+0x1p-25
					if v != w && !near {
						t.Fatalf("%s: number %d is %g, want %g", tensor.name, i, v, w)
					}
				}
			}
			if name == "llama" {
				g := readGolden(t, filepath.Join("testdata", name, "expected.safetensors"))
				g.checkLogits(t, newTrainer(t, got, nil))
			}
		})
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRealFolder loads a BF16 checkpoint that transformers wrote.
func TestRealFolder(t *testing.T) {
	m := load(t, realdata.Path(t, "tiny_models/verl_arithmetic_llama"))
	if want := "llama d128 l4 h4/4 f344 v16"; m.Arch.String() != want || !strings.HasPrefix(m.Arch.TorchDType, "bfloat") {
		t.Errorf("%s of %s, want %s", m.Arch, m.Arch.TorchDType, want)
	}
	logits, err := newTrainer(t, m, nil).Logits([]int32{2, 3, 4, 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range logits {
		if math.IsNaN(float64(v)) || math.Abs(float64(v)) > 100 {
			t.Fatalf("logits %v", logits)
		}
	}
}
