package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// Load reads a tokenizer.json file, and from the files beside it, where there
// are any, which tokens begin and end a text: tokenizer_config.json,
// generation_config.json and config.json, in this order.
func Load(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %s: %w", path, err)
	}
	known := false // whether a file has named EOS
	for _, f := range []struct {
		name  string
		apply func(t *Tokenizer, data []byte, known *bool) error
	}{
		{"tokenizer_config.json", (*Tokenizer).applyTokenizerConfig},
		{"generation_config.json", (*Tokenizer).applyModelConfig},
		{"config.json", (*Tokenizer).applyModelConfig},
	} {
		name := filepath.Join(filepath.Dir(path), f.name)
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load tokenizer: %w", err)
		}
		if err := f.apply(t, data, &known); err != nil {
			return nil, fmt.Errorf("load tokenizer %s: %w", name, err)
		}
	}
	return t, nil
}

// applyTokenizerConfig takes bos_token, add_bos_token and eos_token.
func (t *Tokenizer) applyTokenizerConfig(data []byte, known *bool) error {
	var config struct {
		BOS    configToken `json:"bos_token"`
		AddBOS *bool       `json:"add_bos_token"`
		EOS    configToken `json:"eos_token"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("%w: %w", err, forager.ErrCorrupt)
	}
	if config.BOS != "" {
		id, ok := t.ID(string(config.BOS))
		if !ok {
			return corrupt("bos_token %q is not in the vocabulary", config.BOS)
		}
		t.bos = id
		if config.AddBOS != nil {
			t.opening = nil
			if *config.AddBOS {
				t.opening = []int32{id}
			}
		}
	}
	if config.EOS != "" {
		id, ok := t.ID(string(config.EOS))
		if !ok {
			return corrupt("eos_token %q is not in the vocabulary", config.EOS)
		}
		t.setEOS(id)
		*known = true
	}
	return nil
}

// applyModelConfig takes eos_token_id, a number or a list of them. Small test
// models carry numbers that their vocabulary lacks; these are ignored.
func (t *Tokenizer) applyModelConfig(data []byte, known *bool) error {
	var config struct {
		BOS *int32          `json:"bos_token_id"`
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("%w: %w", err, forager.ErrCorrupt)
	}
	if config.BOS != nil && t.bos < 0 && t.TokenBytes(*config.BOS) != nil {
		t.bos = *config.BOS
	}
	var ids []int32
	if raw := bytes.TrimSpace(config.EOS); len(raw) > 0 && string(raw) != "null" {
		if raw[0] != '[' {
			raw = append(append([]byte{'['}, raw...), ']')
		}
		if err := json.Unmarshal(raw, &ids); err != nil {
			return fmt.Errorf("eos_token_id: %w: %w", err, forager.ErrCorrupt)
		}
	}
	for _, id := range ids {
		if !*known && t.TokenBytes(id) != nil {
			t.setEOS(id)
			*known = true
		}
	}
	t.addStops(ids...)
	return nil
}

// configToken is a token in tokenizer_config.json: a string, or an object with
// the string as its content.
type configToken string

// UnmarshalJSON reads either form, and null as "".
func (c *configToken) UnmarshalJSON(data []byte) error {
	var token struct {
		Content string `json:"content"`
	}
	if json.Unmarshal(data, &token.Content) != nil {
		if err := json.Unmarshal(data, &token); err != nil {
			return err
		}
	}
	*c = configToken(token.Content)
	return nil
}

// MarshalConfig writes the least tokenizer_config.json with which transformers
// opens the folder: it names BOS, EOS and the class that reads tokenizer.json.
func (t *Tokenizer) MarshalConfig() ([]byte, error) {
	config := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false}
	if t.bos >= 0 {
		config["bos_token"] = t.spelling[t.bos]
		config["add_bos_token"] = len(t.opening) > 0
	}
	if t.eos >= 0 {
		config["eos_token"] = t.spelling[t.eos]
	}
	var out bytes.Buffer
	if err := writeJSON(&out, config, "  "); err != nil {
		return nil, fmt.Errorf("write tokenizer_config.json: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
