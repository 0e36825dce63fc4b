package lm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// Architecture is the shape of a model of the Llama family, in the names of
// Hugging Face's config.json. Three members are known: "llama" (Llama 2 and 3,
// SmolLM2), "qwen2" (Qwen2 and 2.5: biases of query, key and value) and "qwen3"
// (queries and keys normalised head by head).
type Architecture struct {
	ModelType     string   `json:"model_type"`    // "llama", "qwen2" or "qwen3"
	Architectures []string `json:"architectures"` // ["LlamaForCausalLM"] and so on

	VocabSize        int     `json:"vocab_size"`
	HiddenSize       int     `json:"hidden_size"`
	IntermediateSize int     `json:"intermediate_size"`
	Layers           int     `json:"num_hidden_layers"`
	Heads            int     `json:"num_attention_heads"`
	KVHeads          int     `json:"num_key_value_heads"`
	HeadDim          int     `json:"head_dim"`                // even
	ContextLength    int     `json:"max_position_embeddings"` // positions, prompt and completion together
	RopeTheta        float64 `json:"rope_theta"`
	NormEpsilon      float32 `json:"rms_norm_eps"`
	TieEmbeddings    bool    `json:"tie_word_embeddings"`

	RopeScaling *RopeScaling `json:"rope_scaling"`
	AttnBias    bool         `json:"attention_bias"` // of query, key, value and output; qwen2 has the first three anyway
	MLPBias     bool         `json:"mlp_bias"`

	HiddenAct    string   `json:"hidden_act"` // "silu"
	BOSTokenID   TokenIDs `json:"bos_token_id"`
	EOSTokenID   TokenIDs `json:"eos_token_id"`
	TorchDType   string   `json:"torch_dtype"` // of the file that was read; computation is in float32
	InitialRange any      `json:"initializer_range,omitempty"`
}

// TokenIDs is none, one or several token ids: null, a number or a list.
type TokenIDs []int32

// UnmarshalJSON reads any of the three forms.
func (t *TokenIDs) UnmarshalJSON(data []byte) error {
	if data[0] == '[' || string(data) == "null" {
		return json.Unmarshal(data, (*[]int32)(t))
	}
	*t = make(TokenIDs, 1)
	return json.Unmarshal(data, &(*t)[0])
}

// MarshalJSON writes the shortest of the three forms.
func (t TokenIDs) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]int32(t))
}

// Tiny is the architecture of the built-in policy: 0.94 million parameters,
// small enough to learn on two CPU cores in minutes.
func Tiny(vocab int) Architecture {
	return Architecture{
		VocabSize: vocab, HiddenSize: 128, IntermediateSize: 352, Layers: 4,
		Heads: 4, KVHeads: 4, HeadDim: 32, ContextLength: 768,
		RopeTheta: 10000, NormEpsilon: 1e-5, TieEmbeddings: true,
	}.normalised()
}

// classes are the model types of the family with their classes in transformers.
var classes = map[string]string{
	"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}

// normalised fills the fields that have conventional values.
func (a Architecture) normalised() Architecture {
	if a.ModelType == "" {
		a.ModelType = "llama"
	}
	if len(a.Architectures) == 0 && classes[a.ModelType] != "" {
		a.Architectures = []string{classes[a.ModelType]}
	}
	if a.HiddenAct == "" {
		a.HiddenAct = "silu"
	}
	if a.TorchDType == "" {
		a.TorchDType = "float32"
	}
	if a.KVHeads == 0 {
		a.KVHeads = a.Heads
	}
	if a.HeadDim == 0 && a.Heads > 0 {
		a.HeadDim = a.HiddenSize / a.Heads
	}
	if a.RopeTheta == 0 {
		a.RopeTheta = 10000
	}
	if a.NormEpsilon == 0 {
		a.NormEpsilon = 1e-5
	}
	return a
}

// qkvBias, outBias and headNorms say which optional tensors the model has.
func (a Architecture) qkvBias() bool   { return a.AttnBias || a.ModelType == "qwen2" }
func (a Architecture) outBias() bool   { return a.AttnBias && a.ModelType != "qwen2" }
func (a Architecture) headNorms() bool { return a.ModelType == "qwen3" }

// Validate reports what this engine cannot run, or nil.
func (a Architecture) Validate() error {
	switch {
	case classes[a.ModelType] == "":
		return fmt.Errorf("model_type %q: %w: this engine runs llama, qwen2 and qwen3", a.ModelType, forager.ErrArchitecture)
	case a.HiddenAct != "silu":
		return fmt.Errorf("hidden_act %q: %w: this engine runs silu", a.HiddenAct, forager.ErrArchitecture)
	case a.MLPBias && a.ModelType != "llama":
		return fmt.Errorf("mlp_bias in %s: %w", a.ModelType, forager.ErrArchitecture)
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"vocab_size", a.VocabSize},
		{"hidden_size", a.HiddenSize},
		{"intermediate_size", a.IntermediateSize},
		{"num_hidden_layers", a.Layers},
		{"num_attention_heads", a.Heads},
		{"num_key_value_heads", a.KVHeads},
		{"head_dim", a.HeadDim},
		{"max_position_embeddings", a.ContextLength},
	} {
		if f.value < 1 || f.value > 1<<24 {
			return fmt.Errorf("%s is %d, want at least 1", f.name, f.value)
		}
	}
	if a.Heads%a.KVHeads != 0 {
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", a.Heads, a.KVHeads)
	}
	if a.HeadDim%2 != 0 {
		return fmt.Errorf("head_dim %d is odd, rotary positions need an even one", a.HeadDim)
	}
	if err := a.RopeScaling.validate(); err != nil {
		return fmt.Errorf("rope_scaling: %w", err)
	}
	return nil
}

// String is the shape summary that manifests carry.
func (a Architecture) String() string {
	return fmt.Sprintf("%s d%d l%d h%d/%d f%d v%d", a.ModelType, a.HiddenSize, a.Layers, a.Heads, a.KVHeads, a.IntermediateSize, a.VocabSize)
}

// sameShape reports whether weights of b fit a.
func (a Architecture) sameShape(b Architecture) bool {
	return a.String() == b.String() && a.HeadDim == b.HeadDim && a.TieEmbeddings == b.TieEmbeddings &&
		a.AttnBias == b.AttnBias && a.MLPBias == b.MLPBias
}

// ReadArchitecture reads config.json of a Hugging Face folder.
func ReadArchitecture(dir string) (Architecture, error) {
	path := filepath.Join(dir, configFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return Architecture{}, fmt.Errorf("read model configuration: %w", err)
	}
	a, err := parseArchitecture(data)
	if err != nil {
		return Architecture{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// variants are fields of config.json that some files have: newer spellings, and
// features that must be absent.
type variants struct {
	DType          string          `json:"dtype"`           // transformers 5
	RopeParameters *RopeScaling    `json:"rope_parameters"` // transformers 5
	SlidingWindow  bool            `json:"use_sliding_window"`
	LayerTypes     []string        `json:"layer_types"`
	Rotated        *float64        `json:"partial_rotary_factor"`
	Interleaved    bool            `json:"rope_interleaved"`
	Quantization   json.RawMessage `json:"quantization_config"`
}

func parseArchitecture(data []byte) (Architecture, error) {
	var a Architecture
	var v variants
	if err := errors.Join(json.Unmarshal(data, &a), json.Unmarshal(data, &v)); err != nil {
		return Architecture{}, fmt.Errorf("%w: %w", forager.ErrCorrupt, err)
	}
	if a.ModelType == "" {
		return Architecture{}, fmt.Errorf("model_type is missing: %w", forager.ErrArchitecture)
	}
	for _, l := range v.LayerTypes {
		v.SlidingWindow = v.SlidingWindow || l != "full_attention"
	}
	switch {
	case v.SlidingWindow:
		return Architecture{}, fmt.Errorf("sliding-window attention: %w: this engine runs full attention", forager.ErrArchitecture)
	case v.Rotated != nil && *v.Rotated != 1:
		return Architecture{}, fmt.Errorf("partial_rotary_factor %g: %w: this engine rotates whole heads", *v.Rotated, forager.ErrArchitecture)
	case v.Interleaved:
		return Architecture{}, fmt.Errorf("rope_interleaved: %w: this engine rotates halves of heads", forager.ErrArchitecture)
	case len(v.Quantization) > 0 && string(v.Quantization) != "null":
		return Architecture{}, fmt.Errorf("quantization_config: %w: this engine reads F32, F16 and BF16 safetensors, and GGUF", forager.ErrArchitecture)
	}
	if v.DType != "" {
		a.TorchDType = v.DType
	}
	if r := v.RopeParameters; r != nil {
		if r.Theta > 0 {
			a.RopeTheta = r.Theta
		}
		a.RopeScaling = r
	}
	a.RopeScaling = a.RopeScaling.normalised(a.ContextLength)
	a = a.normalised()
	return a, a.Validate()
}
