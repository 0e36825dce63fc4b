package lm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy/safetensors"
)

// Names of the files in which PEFT keeps an adapter.
const (
	adapterConfigFile  = "adapter_config.json"
	adapterWeightsFile = "adapter_model.safetensors"
)

// peftConfig is adapter_config.json as Hugging Face's PEFT writes it: the
// fields that say what an adapter is, and those that must say no.
type peftConfig struct {
	PEFTType      string   `json:"peft_type"`
	TaskType      string   `json:"task_type"`
	BaseModel     *string  `json:"base_model_name_or_path"`
	Rank          int      `json:"r"`
	Alpha         float32  `json:"lora_alpha"`
	Dropout       float32  `json:"lora_dropout"`
	Targets       []string `json:"target_modules"` // sometimes with their block, as in self_attn.q_proj
	Bias          string   `json:"bias"`
	FanInFanOut   bool     `json:"fan_in_fan_out"`
	InferenceMode bool     `json:"inference_mode"`

	RSLoRA       bool           `json:"use_rslora"`
	DoRA         bool           `json:"use_dora"`
	RankPattern  map[string]any `json:"rank_pattern"`
	AlphaPattern map[string]any `json:"alpha_pattern"`
	AlsoSaved    []string       `json:"modules_to_save"`
	Layers       any            `json:"layers_to_transform"`
}

// Save writes the adapter into an existing folder, in the form that PEFT loads.
// base names the model that it changes, a folder or a name on the Hugging Face
// hub; it may be empty.
func (a *Adapter) Save(dir, base string) error {
	c := peftConfig{
		PEFTType: "LORA", TaskType: "CAUSAL_LM", Rank: a.Config.Rank, Alpha: a.Config.Alpha, Targets: a.Config.Targets,
		Bias: "none", InferenceMode: true, RankPattern: map[string]any{}, AlphaPattern: map[string]any{},
	}
	if base != "" {
		c.BaseModel = &base
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode adapter configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, adapterConfigFile), append(config, '\n'), 0o644); err != nil {
		return fmt.Errorf("write adapter configuration: %w", err)
	}
	return safetensors.WriteFile(filepath.Join(dir, adapterWeightsFile), a.named(), fileMetadata)
}

// LoadAdapter reads an adapter for a model of the given architecture from a
// folder in PEFT's form. Adapters of another kind than LoRA, or that change
// more than the seven projections, are refused with forager.ErrArchitecture.
func LoadAdapter(dir string, arch Architecture) (*Adapter, error) {
	path := filepath.Join(dir, adapterConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read adapter configuration: %w", err)
	}
	cfg, err := parseAdapterConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a, err := NewAdapter(arch, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, forager.ErrCorrupt, err)
	}
	f, err := safetensors.Open(filepath.Join(dir, adapterWeightsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list := a.tensors()
	for _, t := range list {
		w, err := f.Float32(t.name, t.shape...)
		if err != nil {
			return nil, err
		}
		copy(a.Weights[t.offset:], w)
	}
	if names := f.Names(); len(names) != len(list) {
		return nil, fmt.Errorf("%s holds %d tensors, %s announces %d: %w",
			filepath.Join(dir, adapterWeightsFile), len(names), adapterConfigFile, len(list), forager.ErrArchitecture)
	}
	return a, nil
}

func parseAdapterConfig(data []byte) (LoRAConfig, error) {
	var c peftConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return LoRAConfig{}, fmt.Errorf("%w: %w", forager.ErrCorrupt, err)
	}
	for _, unsupported := range []struct {
		found bool
		name  string
	}{
		{c.PEFTType != "LORA", fmt.Sprintf("peft_type %q", c.PEFTType)},
		{c.Bias != "" && c.Bias != "none", fmt.Sprintf("bias %q", c.Bias)},
		{c.FanInFanOut, "fan_in_fan_out"},
		{c.RSLoRA, "use_rslora"},
		{c.DoRA, "use_dora"},
		{len(c.RankPattern) > 0, "rank_pattern"},
		{len(c.AlphaPattern) > 0, "alpha_pattern"},
		{len(c.AlsoSaved) > 0, "modules_to_save"},
		{c.Layers != nil, "layers_to_transform"},
	} {
		if unsupported.found {
			return LoRAConfig{}, fmt.Errorf("%s: %w: this engine runs plain LoRA on all layers", unsupported.name, forager.ErrArchitecture)
		}
	}
	cfg := LoRAConfig{Rank: c.Rank, Alpha: c.Alpha}
	for _, name := range c.Targets {
		cfg.Targets = append(cfg.Targets, name[strings.LastIndexByte(name, '.')+1:])
	}
	if cfg.Rank < 1 {
		return cfg, fmt.Errorf("r is %d, want at least 1: %w", cfg.Rank, forager.ErrCorrupt)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("%w: %w", forager.ErrArchitecture, err)
	}
	return cfg, nil
}
