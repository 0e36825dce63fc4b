package lm

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/gguf"
)

// ropeFactors is the tensor that holds what llama.cpp divides the frequencies
// of rotary positions by.
const ropeFactors = "rope_freqs.weight"

func loadGGUF(path string) (*Model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, forager.WithHint(err, policyHint)
	}
	defer f.Close()
	arch, err := ggufArchitecture(f)
	if err != nil {
		return nil, fmt.Errorf("read model %s: %w", path, err)
	}
	return read(arch, ggufWeights{f, arch}, path)
}

// ggufArchitecture translates the metadata of a GGUF file.
func ggufArchitecture(f *gguf.File) (Architecture, error) {
	m := ggufMetadata{file: f}
	a := Architecture{ModelType: m.text("general.architecture", "")}
	if classes[a.ModelType] == "" {
		return a, errors.Join(m.err, a.Validate())
	}
	prefix := a.ModelType + "."
	if m.integer(prefix+"expert_count", 0) > 0 {
		return a, fmt.Errorf("mixture of experts: %w: this engine runs dense models", forager.ErrArchitecture)
	}
	a.HiddenSize = m.integer(prefix+"embedding_length", required)
	a.IntermediateSize = m.integer(prefix+"feed_forward_length", required)
	a.Layers = m.integer(prefix+"block_count", required)
	a.Heads = m.integer(prefix+"attention.head_count", required)
	a.KVHeads = m.integer(prefix+"attention.head_count_kv", a.Heads)
	a.HeadDim = m.integer(prefix+"attention.key_length", 0)
	a.ContextLength = m.integer(prefix+"context_length", required)
	a.RopeTheta = m.number(prefix+"rope.freq_base", 10000)
	a.NormEpsilon = float32(m.number(prefix+"attention.layer_norm_rms_epsilon", 0))
	a = a.normalised()
	values := m.integer(prefix+"attention.value_length", a.HeadDim)
	rotated := m.integer(prefix+"rope.dimension_count", a.HeadDim)
	if m.err != nil {
		return a, m.err
	}
	if values != a.HeadDim || rotated != a.HeadDim {
		return a, fmt.Errorf("keys of %d, values of %d and %d rotated dimensions: %w: this engine wants all three the same",
			a.HeadDim, values, rotated, forager.ErrArchitecture)
	}
	if embedding, ok := f.Shape("token_embd.weight"); ok {
		a.VocabSize = embedding[0]
	}
	_, untied := f.Shape("output.weight")
	a.TieEmbeddings = !untied
	if a.ModelType != "qwen2" {
		_, a.AttnBias = f.Shape("blk.0.attn_q.bias")
	}
	_, a.MLPBias = f.Shape("blk.0.ffn_up.bias")
	a.BOSTokenID = m.tokens("tokenizer.ggml.bos_token_id")
	a.EOSTokenID = m.tokens("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
	var err error
	if a.RopeScaling, err = m.ropeScaling(prefix+"rope.", a); err != nil {
		return a, err
	}
	return a, errors.Join(m.err, a.Validate())
}

// ggufMetadata reads metadata and keeps the first error.
type ggufMetadata struct {
	file *gguf.File
	err  error
}

// required stands for no default.
const required = math.MinInt

func (m *ggufMetadata) keep(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *ggufMetadata) integer(key string, missing int) int {
	if missing != required && !m.file.Has(key) {
		return missing
	}
	v, err := m.file.Int(key)
	m.keep(err)
	return int(v)
}

func (m *ggufMetadata) number(key string, missing float64) float64 {
	if !m.file.Has(key) {
		return missing
	}
	v, err := m.file.Float(key)
	m.keep(err)
	return v
}

func (m *ggufMetadata) text(key, missing string) string {
	if !m.file.Has(key) {
		return missing
	}
	v, err := m.file.Text(key)
	m.keep(err)
	return v
}

// tokens lists the ids under the keys that are there, each once.
func (m *ggufMetadata) tokens(keys ...string) (ids TokenIDs) {
	for _, key := range keys {
		id := m.integer(key, -1)
		if id >= 0 && id < math.MaxInt32 && (len(ids) == 0 || ids[0] != int32(id)) {
			ids = append(ids, int32(id))
		}
	}
	return ids
}

func (m *ggufMetadata) ropeScaling(prefix string, a Architecture) (*RopeScaling, error) {
	if shape, ok := m.file.Shape(ropeFactors); ok {
		factors := make([]float32, a.HeadDim/2)
		if err := m.file.ReadFloat32(factors, ropeFactors, len(factors)); err != nil {
			return nil, err
		}
		s, err := llama3Scaling(factors, a)
		if err != nil {
			return nil, fmt.Errorf("tensor %q of shape %v: %w", ropeFactors, shape, err)
		}
		return s, nil
	}
	s := &RopeScaling{
		Type:            m.text(prefix+"scaling.type", "none"),
		Factor:          m.number(prefix+"scaling.factor", 1),
		OriginalContext: m.integer(prefix+"scaling.original_context_length", a.ContextLength),
	}
	if old := m.number(prefix+"scale_linear", 1); old != 1 { // before scaling.type
		s.Type, s.Factor = "linear", old
	}
	switch s.Type {
	case "none":
		return nil, nil
	case "yarn":
		s.BetaFast = m.number(prefix+"scaling.yarn_beta_fast", 0)
		s.BetaSlow = m.number(prefix+"scaling.yarn_beta_slow", 0)
		s.Attention = m.number(prefix+"scaling.attn_factor", 1) * (1 + 0.1*math.Log(s.Factor))
	}
	return s.normalised(a.ContextLength), nil
}

// ggufWeights gives the tensors of a GGUF file their Hugging Face names and
// layout.
type ggufWeights struct {
	*gguf.File
	arch Architecture
}

// ggufNames pairs the names of tensors, without layer and suffix.
var ggufNames = [][2]string{
	{"model.embed_tokens", "token_embd"},
	{"model.norm", "output_norm"},
	{"lm_head", "output"},
	{"input_layernorm", "attn_norm"},
	{"self_attn.q_proj", "attn_q"},
	{"self_attn.k_proj", "attn_k"},
	{"self_attn.v_proj", "attn_v"},
	{"self_attn.q_norm", "attn_q_norm"},
	{"self_attn.k_norm", "attn_k_norm"},
	{"self_attn.o_proj", "attn_output"},
	{"post_attention_layernorm", "ffn_norm"},
	{"mlp.gate_proj", "ffn_gate"},
	{"mlp.up_proj", "ffn_up"},
	{"mlp.down_proj", "ffn_down"},
}

// translate gives a tensor's name of the other format, or the name itself when
// it is none of the format it comes from. Formats are 0 for Hugging Face's and
// 1 for GGUF's.
func translate(name string, from, to int) string {
	layers := [2]string{"model.layers.", "blk."}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return name
	}
	stem, suffix, prefix := name[:dot], name[dot:], ""
	if rest, ok := strings.CutPrefix(stem, layers[from]); ok {
		layer, part, _ := strings.Cut(rest, ".")
		stem, prefix = part, layers[to]+layer+"."
	}
	for _, pair := range ggufNames {
		if pair[from] == stem {
			return prefix + pair[to] + suffix
		}
	}
	return name
}

func (w ggufWeights) Names() []string {
	var list []string
	for _, name := range w.File.Names() {
		if name != ropeFactors {
			list = append(list, translate(name, 1, 0))
		}
	}
	return list
}

func (w ggufWeights) Shape(name string) ([]int, bool) { return w.File.Shape(translate(name, 0, 1)) }

func (w ggufWeights) ReadFloat32(out []float32, name string, shape ...int) error {
	if err := w.File.ReadFloat32(out, translate(name, 0, 1), shape...); err != nil {
		return err
	}
	if w.arch.ModelType == "llama" && (strings.Contains(name, ".q_proj.") || strings.Contains(name, ".k_proj.")) {
		splitHalves(out, w.arch.HeadDim, len(out)/shape[0])
	}
	return nil
}

// splitHalves changes the order of rows in each head of a query or key matrix.
// GGUF's llama rotates row 2i with row 2i+1, Hugging Face's row i with row
// i + dim/2; the other architectures have the latter order in both.
func splitHalves(rows []float32, dim, width int) {
	head := make([]float32, dim*width)
	for ; len(rows) > 0; rows = rows[len(head):] {
		copy(head, rows)
		for i := range dim / 2 {
			copy(rows[i*width:][:width], head[2*i*width:])
			copy(rows[(i+dim/2)*width:][:width], head[(2*i+1)*width:])
		}
	}
}
