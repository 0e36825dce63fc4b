package lm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/gguf"
)

// ggufOf makes a file without tensors. Pairs are a key and a string, uint32 or
// float32.
func ggufOf(t *testing.T, pairs ...any) *gguf.File {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) {
		if s, ok := v.(string); ok {
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
			v = []byte(s)
		}
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("GGUF")
	put(uint32(3))
	put([2]uint64{0, uint64(len(pairs) / 2)})
	for i := 0; i < len(pairs); i += 2 {
		put(pairs[i])
		switch pairs[i+1].(type) {
		case uint32:
			put(uint32(4))
		case float32:
			put(uint32(6))
		case string:
			put(uint32(8))
		}
		put(pairs[i+1])
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestGGUFArchitecture(t *testing.T) {
	base := []any{
		"general.architecture", "qwen2", "qwen2.embedding_length", uint32(64), "qwen2.feed_forward_length", uint32(96), "qwen2.block_count", uint32(3),
		"qwen2.attention.head_count", uint32(4), "qwen2.context_length", uint32(4096), "qwen2.attention.layer_norm_rms_epsilon", float32(0.25),
	}
	with := func(pairs ...any) *gguf.File { return ggufOf(t, append(append([]any{}, base...), pairs...)...) }

	// Without tensors there is no vocabulary: everything else is read before.
	a, err := ggufArchitecture(with("tokenizer.ggml.eos_token_id", uint32(7), "tokenizer.ggml.eot_token_id", uint32(9), "qwen2.rope.freq_base", float32(1e6)))
	if err == nil || !strings.Contains(err.Error(), "vocab_size") {
		t.Errorf("error %v", err)
	}
	if a.String() != "qwen2 d64 l3 h4/4 f96 v0" || a.HeadDim != 16 || a.RopeTheta != 1e6 || a.NormEpsilon != 0.25 ||
		len(a.BOSTokenID) != 0 || len(a.EOSTokenID) != 2 || !a.TieEmbeddings || a.AttnBias || a.RopeScaling != nil {
		t.Errorf("architecture %+v", a)
	}
	a, _ = ggufArchitecture(with("qwen2.rope.scaling.type", "yarn", "qwen2.rope.scaling.factor", float32(4), "qwen2.rope.scaling.original_context_length", uint32(1024)))
	if s := a.RopeScaling; s == nil || s.Type != "yarn" || s.Factor != 4 || s.OriginalContext != 1024 || s.BetaFast != 32 || math.Abs(s.Attention-1-0.1*math.Log(4)) > 1e-9 {
		t.Errorf("yarn %+v", s)
	}
	a, _ = ggufArchitecture(with("qwen2.rope.scale_linear", float32(2)))
	if s := a.RopeScaling; s == nil || s.Type != "linear" || s.Factor != 2 {
		t.Errorf("linear %+v", s)
	}

	for name, c := range map[string]struct {
		f    *gguf.File
		want error
		says string
	}{
		"no architecture": {ggufOf(t), forager.ErrArchitecture, "model_type"},
		"unknown":         {ggufOf(t, "general.architecture", "gemma"), forager.ErrArchitecture, "gemma"},
		"no depth":        {ggufOf(t, base[:6]...), forager.ErrNotFound, "qwen2.block_count"},
		"experts":         {with("qwen2.expert_count", uint32(8)), forager.ErrArchitecture, "experts"},
		"key of another":  {with("qwen2.attention.head_count_kv", "two"), forager.ErrSchema, "head_count_kv"},
		"rotated half":    {with("qwen2.rope.dimension_count", uint32(8)), forager.ErrArchitecture, "8 rotated"},
	} {
		if _, err := ggufArchitecture(c.f); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGGUFDamage changes names in a real file.
func TestGGUFDamage(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		want     error
		says     []string
	}{
		"missing tensor": {"blk.1.ffn_down.weight", "blk.7.ffn_down.weight", forager.ErrNotFound, []string{"blk.1.ffn_down.weight", "model.gguf"}},
		"other tensor":   {"rope_freqs.weight", "rope_zeros.weight", forager.ErrArchitecture, []string{"rope_zeros.weight"}},
		"truncated":      {"", "", forager.ErrCorrupt, []string{"truncated", "model.gguf"}},
	} {
		data := readFile(t, "testdata/llama/model.gguf")
		if c.from == "" {
			data = data[:len(data)-100]
		}
		path := filepath.Join(t.TempDir(), "model.gguf")
		if err := os.WriteFile(path, bytes.Replace(data, []byte(c.from), []byte(c.to), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		for _, part := range c.says {
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestLlama3Scaling finds the published settings from the factors that
// llama.cpp's converter derives from them.
func TestLlama3Scaling(t *testing.T) {
	factors := func(s RopeScaling, a Architecture) (list []float32) {
		plain, _ := a.rotations()
		a.RopeScaling = &s
		scaled, _ := a.rotations()
		for i := range plain {
			list = append(list, float32(plain[i]/scaled[i]))
		}
		return list
	}
	for _, factor := range []float64{8, 32} { // Llama 3.1 and 3.2
		a := Architecture{HeadDim: 128, RopeTheta: 500000}
		want := RopeScaling{Type: "llama3", Factor: factor, LowFrequency: 1, HighFrequency: 4, OriginalContext: 8192}
		if got, err := llama3Scaling(factors(want, a), a); err != nil || *got != want {
			t.Errorf("%+v: %+v %v", want, got, err)
		}
		odd := RopeScaling{Type: "llama3", Factor: factor, LowFrequency: 0.7, HighFrequency: 5.5, OriginalContext: 3000}
		if _, err := llama3Scaling(factors(odd, a), a); err != nil {
			t.Errorf("%+v: %v", odd, err)
		}
	}
	a := Architecture{HeadDim: 8, RopeTheta: 10000}
	for _, bad := range [][]float32{{1, 2, 1, 2}, {0, 1, 1, 1}, {1, 1, float32(math.NaN()), 8}, {1, 1, 1, float32(math.Inf(1))}, {8, 1, 1, 1}, {-1, 1, 1, 1}} {
		if s, err := llama3Scaling(bad, a); !errors.Is(err, forager.ErrArchitecture) {
			t.Errorf("factors %v: %+v %v", bad, s, err)
		}
	}
}
