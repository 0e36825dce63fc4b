package lm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// Architecture is the shape of a model, in the names of Hugging Face's
// config.json for LlamaForCausalLM.
type Architecture struct {
	ModelType     string   `json:"model_type"`    // "llama"
	Architectures []string `json:"architectures"` // ["LlamaForCausalLM"]

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

	HiddenAct    string `json:"hidden_act"` // "silu"
	BOSTokenID   *int32 `json:"bos_token_id"`
	EOSTokenID   *int32 `json:"eos_token_id"`
	TorchDType   string `json:"torch_dtype"`
	AttnBias     bool   `json:"attention_bias"`
	MLPBias      bool   `json:"mlp_bias"`
	RopeScaling  any    `json:"rope_scaling"`
	InitialRange any    `json:"initializer_range,omitempty"`
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

// normalised fills the fields that have conventional values.
func (a Architecture) normalised() Architecture {
	if a.ModelType == "" {
		a.ModelType = "llama"
	}
	if len(a.Architectures) == 0 {
		a.Architectures = []string{"LlamaForCausalLM"}
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

// Validate reports what this engine cannot run, or nil.
func (a Architecture) Validate() error {
	switch {
	case a.ModelType != "llama":
		return fmt.Errorf("model_type %q: %w: this engine runs llama", a.ModelType, forager.ErrArchitecture)
	case a.HiddenAct != "silu":
		return fmt.Errorf("hidden_act %q: %w: this engine runs silu", a.HiddenAct, forager.ErrArchitecture)
	case a.AttnBias || a.MLPBias:
		return fmt.Errorf("biases: %w: this engine runs models without them", forager.ErrArchitecture)
	case a.RopeScaling != nil:
		return fmt.Errorf("rope_scaling: %w: this engine runs models without it", forager.ErrArchitecture)
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
	return nil
}

// String is the shape summary that manifests carry.
func (a Architecture) String() string {
	return fmt.Sprintf("%s d%d l%d h%d/%d f%d v%d", a.ModelType, a.HiddenSize, a.Layers, a.Heads, a.KVHeads, a.IntermediateSize, a.VocabSize)
}

// sameShape reports whether weights of b fit a.
func (a Architecture) sameShape(b Architecture) bool {
	return a.String() == b.String() && a.HeadDim == b.HeadDim && a.TieEmbeddings == b.TieEmbeddings
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

func parseArchitecture(data []byte) (Architecture, error) {
	var a Architecture
	if err := json.Unmarshal(data, &a); err != nil {
		return Architecture{}, fmt.Errorf("%w: %w", forager.ErrCorrupt, err)
	}
	a = a.normalised()
	return a, a.Validate()
}
