package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// file is tokenizer.json.
type file struct {
	Version    string       `json:"version"`
	Truncation *struct{}    `json:"truncation"`
	Padding    *struct{}    `json:"padding"`
	Added      []addedToken `json:"added_tokens"`
	stages
	Model model `json:"model"`
}

type model struct {
	flags
	Vocab  vocabulary  `json:"vocab"`
	Merges []mergeRule `json:"merges"`
}

// flags are the fields of the model beside its tables.
type flags struct {
	Type         string   `json:"type"`
	Dropout      *float64 `json:"dropout"`
	UnknownToken *string  `json:"unk_token"`
	Prefix       *string  `json:"continuing_subword_prefix"`
	Suffix       *string  `json:"end_of_word_suffix"`
	FuseUnknown  bool     `json:"fuse_unk"`
	ByteFallback bool     `json:"byte_fallback"`
	IgnoreMerges bool     `json:"ignore_merges"`
}

// vocabulary gives the id of every token, and is written in order of id.
type vocabulary map[string]int32

// MarshalJSON writes an object whose keys are in order of id.
func (v vocabulary) MarshalJSON() ([]byte, error) {
	tokens := slices.SortedFunc(maps.Keys(v), func(a, b string) int { return cmp.Compare(v[a], v[b]) })
	var out bytes.Buffer
	separator := byte('{')
	for _, token := range tokens {
		out.WriteByte(separator)
		separator = ','
		if err := writeJSON(&out, token, ""); err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, ":%d", v[token])
	}
	if separator == '{' {
		out.WriteByte('{')
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// mergeRule is one merge as the spelling of its two tokens, either "a b" or, in
// newer files, ["a","b"].
type mergeRule [2]string

// UnmarshalJSON reads either form.
func (m *mergeRule) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		var tokens []string
		if err := json.Unmarshal(data, &tokens); err != nil {
			return err
		}
		if len(tokens) != 2 {
			return fmt.Errorf("merge %s does not have two tokens", data)
		}
		*m = mergeRule(tokens)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	var err error
	*m, err = parseMerge(text)
	return err
}

// MarshalJSON writes the first form, which every version of every reader takes,
// if the tokens allow it.
func (m mergeRule) MarshalJSON() ([]byte, error) {
	var value any = m[0] + " " + m[1]
	if strings.Contains(m[0]+m[1], " ") {
		value = []string(m[:])
	}
	var out bytes.Buffer
	err := writeJSON(&out, value, "")
	return out.Bytes(), err
}

// gpt2Stages are the stages of GPT-2's tokenizer and of those trained here.
func gpt2Stages() stages {
	return stages{PreTokenizer: byteLevelStage(true), Decoder: byteLevelStage(true)}
}

func parseMerge(text string) (mergeRule, error) {
	left, right, ok := strings.Cut(text, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return mergeRule{}, fmt.Errorf("merge %q does not have two tokens", text)
	}
	return mergeRule{left, right}, nil
}

// Parse reads the content of a tokenizer.json file.
func Parse(data []byte) (*Tokenizer, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("parse tokenizer.json: %w: %w", err, forager.ErrCorrupt)
	}
	t, err := build(f)
	if err != nil {
		return nil, fmt.Errorf("parse tokenizer.json: %w", err)
	}
	return t, nil
}

// Marshal writes tokenizer.json. The tokenizers library reads it, and Parse
// gives the same tokeniser again, but for an EOS set otherwise: that belongs in
// tokenizer_config.json, see MarshalConfig.
func (t *Tokenizer) Marshal() ([]byte, error) {
	f := file{Version: "1.0", Added: t.added, stages: t.stages, Model: t.model()}
	var out bytes.Buffer
	if err := writeJSON(&out, f, "  "); err != nil {
		return nil, fmt.Errorf("write tokenizer.json: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// model rebuilds the model part of the file.
func (t *Tokenizer) model() model {
	m := model{flags: t.flags, Vocab: make(vocabulary, len(t.ids)), Merges: make([]mergeRule, len(t.merges))}
	m.Type, m.Dropout = "BPE", nil
	for token, id := range t.ids {
		m.Vocab[token] = id
	}
	for _, a := range t.added {
		if !t.isAdded[a.ID] {
			delete(m.Vocab, a.Content)
		}
	}
	for rank, x := range t.merges {
		m.Merges[rank] = mergeRule{t.spelling[x.left], t.spelling[x.right]}
	}
	return m
}

// Save writes tokenizer.json in one piece: readers see the old file or the
// whole new one, also after a crash or on a full disk.
func (t *Tokenizer) Save(path string) error {
	data, err := t.Marshal()
	if err != nil {
		return err
	}
	err = wholefile.Write(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("save tokenizer %s: %w", path, err)
	}
	return nil
}

// writeJSON writes a value without a final newline; "<" stays "<".
func writeJSON(out *bytes.Buffer, value any, indent string) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	out.Truncate(out.Len() - 1)
	return nil
}
