package lm

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

const shape = `"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
	"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "hidden_act": "silu"`

func TestConfigurations(t *testing.T) {
	parse := func(t *testing.T, fields string) Architecture {
		t.Helper()
		a, err := parseArchitecture([]byte("{" + shape + "," + fields + "}"))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	t.Run("several end tokens and a null", func(t *testing.T) {
		a := parse(t, `"model_type": "llama", "eos_token_id": [7, 9], "bos_token_id": null`)
		if !slices.Equal(a.EOSTokenID, TokenIDs{7, 9}) || len(a.BOSTokenID) != 0 {
			t.Errorf("got %v and %v", a.EOSTokenID, a.BOSTokenID)
		}
		if one := parse(t, `"model_type": "llama", "eos_token_id": 2`); !slices.Equal(one.EOSTokenID, TokenIDs{2}) {
			t.Errorf("got %v", one.EOSTokenID)
		}
	})
	t.Run("optional tensors", func(t *testing.T) {
		for fields, want := range map[string]string{
			`"model_type": "llama"`: "",
			`"model_type": "llama", "attention_bias": true, "mlp_bias": true`: "q_proj.bias k_proj.bias v_proj.bias o_proj.bias gate_proj.bias up_proj.bias down_proj.bias",
			`"model_type": "qwen2"`: "q_proj.bias k_proj.bias v_proj.bias",
			`"model_type": "qwen3"`: "q_norm.weight k_norm.weight",
		} {
			var got []string
			for _, x := range parse(t, fields).tensors() {
				name, inLayer := strings.CutPrefix(x.name, "model.layers.1.")
				if inLayer && (strings.HasSuffix(name, "bias") || strings.Contains(name, "_norm.")) {
					got = append(got, name[strings.IndexByte(name, '.')+1:])
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: got %v, want %s", fields, got, want)
			}
		}
	})
	t.Run("spelling of transformers 5", func(t *testing.T) {
		a := parse(t, `"model_type": "qwen3", "dtype": "bfloat16", "head_dim": 16,
			"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "layer_types": ["full_attention", "full_attention"]`)
		if a.RopeTheta != 1e6 || a.RopeScaling != nil || a.TorchDType != "bfloat16" || a.HeadDim != 16 {
			t.Errorf("got %+v", a)
		}
		a = parse(t, `"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5000}`)
		if a.RopeTheta != 5000 || a.RopeScaling == nil || a.RopeScaling.Factor != 4 || a.RopeScaling.Theta != 0 {
			t.Errorf("got %+v, scaling %+v", a, a.RopeScaling)
		}
	})
	t.Run("what is written is read again", func(t *testing.T) {
		a := parse(t, `"model_type": "llama", "eos_token_id": [1, 2], "rope_theta": 500000, "attention_bias": true, "rope_scaling":
			{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}`)
		data, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseArchitecture(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(b); string(again) != string(data) {
			t.Errorf("wrote %s, read %s", data, again)
		}
	})
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for fields, want := range map[string]string{
		`"model_type": "gemma3"`:                                                                `model_type "gemma3"`,
		`"hidden_size": 32`:                                                                     "model_type is missing",
		`"model_type": "llama", "hidden_act": "gelu"`:                                           `hidden_act "gelu"`,
		`"model_type": "qwen2", "use_sliding_window": true`:                                     "sliding-window",
		`"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]`:         "sliding-window",
		`"model_type": "llama", "partial_rotary_factor": 0.5`:                                   "partial_rotary_factor",
		`"model_type": "llama", "rope_interleaved": true`:                                       "rope_interleaved",
		`"model_type": "llama", "quantization_config": {"quant_method": "gptq"}`:                "quantization_config",
		`"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2}`:               `rope_type "dynamic"`,
		`"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 0.5}`:         "factor 0.5",
		`"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8}`:           "low_freq_factor",
		`"model_type": "llama", "num_key_value_heads": 3`:                                       "not a multiple",
		`"model_type": "llama", "head_dim": 7`:                                                  "odd",
		`"model_type": "llama", "eos_token_id": "two"`:                                          "corrupt",
		`"model_type": "llama", "num_hidden_layers": 0`:                                         "num_hidden_layers",
		`"model_type": "qwen2", "mlp_bias": true`:                                               "mlp_bias",
		`"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 4, "beta_slow": 40}`: "beta_slow",
	} {
		if _, err := parseArchitecture([]byte("{" + shape + "," + fields + "}")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", fields, err, want)
		}
	}
	if _, err := parseArchitecture([]byte(`{"model_type": "t5"}`)); !errors.Is(err, forager.ErrArchitecture) {
		t.Errorf("got %v, want ErrArchitecture", err)
	}
}

// TestRopeScaling states what each kind does to fast and slow rotations. Fixtures
// from transformers check the values in between.
func TestRopeScaling(t *testing.T) {
	a := small(true)
	a.HeadDim, a.ContextLength, a.RopeTheta = 64, 4096, 10000
	plain, one := a.rotations()
	if one != 1 || plain[0] != 1 || math.Abs(plain[16]-0.01) > 1e-12 {
		t.Fatalf("without scaling: %v, %g", plain, one)
	}
	for _, test := range []struct {
		scaling   RopeScaling
		fast      float64 // factor of the fastest rotation
		magnitude float64
	}{
		{RopeScaling{Type: "linear", Factor: 4}, 1. / 4, 1},
		{RopeScaling{Type: "llama3", Factor: 4, LowFrequency: 1, HighFrequency: 4, OriginalContext: 1024}, 1, 1},
		{RopeScaling{Type: "yarn", Factor: 4, OriginalContext: 1024}, 1, 0.1*math.Log(4) + 1},
	} {
		a.RopeScaling = test.scaling.normalised(a.ContextLength)
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		scaled, magnitude := a.rotations()
		last := len(plain) - 1
		if scaled[0] != plain[0]*test.fast || math.Abs(scaled[last]/plain[last]-1./4) > 1e-12 || magnitude != test.magnitude {
			t.Errorf("%s: fastest ×%g, slowest ×%g, magnitude %g", test.scaling.Type, scaled[0]/plain[0], scaled[last]/plain[last], magnitude)
		}
		for i := 1; i < len(plain); i++ {
			if scaled[i] >= scaled[i-1] || scaled[i] > plain[i] || scaled[i] < plain[i]/4-1e-15 {
				t.Errorf("%s: rotation %d is %g, unscaled %g", test.scaling.Type, i, scaled[i], plain[i])
			}
		}
	}
}
