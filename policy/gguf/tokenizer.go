package gguf

import (
	"errors"
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// TokenType says what a token of the vocabulary is for.
type TokenType = int32

// The types of tokens.
const (
	TokenNormal      TokenType = 1
	TokenUnknown     TokenType = 2
	TokenControl     TokenType = 3 // such as the end of a turn: never made from plain text
	TokenUserDefined TokenType = 4 // recognised in text before it is split
	TokenUnused      TokenType = 5
	TokenByte        TokenType = 6 // "<0x0A>" and so on
)

// NoToken is the id of a special token that a vocabulary does not have.
const NoToken int32 = -1

// Tokenizer is the tables of a file's tokenizer as they are stored.
type Tokenizer struct {
	Model string // "gpt2": byte-level BPE; "llama": SentencePiece; others exist
	Pre   string // the pre-tokenizer of a "gpt2" model, such as "qwen2" or "llama-bpe"; may be empty

	Tokens []string    // the text of each id
	Types  []TokenType // of each id; all TokenNormal when the file does not say
	Scores []float32   // of each id, for "llama"; nil when there are none
	Merges []string    // "left right", the first merged first, for "gpt2"; nil when there are none

	// Special tokens: ids below len(Tokens), or NoToken.
	BOS, EOS, EOT, Unknown, Padding int32

	AddBOS         bool // a text begins with BOS
	AddEOS         bool // a text ends with EOS
	AddSpacePrefix bool // a text gets a space in front, for "llama"

	ChatTemplate string // Jinja; empty when there is none
}

// Tokenizer gives the tables of the tokenizer. It fails with
// [forager.ErrNotFound] in a file without one, and with [forager.ErrCorrupt]
// when the tables do not fit each other.
func (f *File) Tokenizer() (Tokenizer, error) {
	var t Tokenizer
	var err error
	if t.Model, err = f.Text("tokenizer.ggml.model"); err != nil {
		return t, err
	}
	if t.Tokens, err = get[[]string](f, "tokenizer.ggml.tokens"); err != nil {
		return t, err
	}
	llama := t.Model == "llama"
	err = errors.Join(
		optional(f, "tokenizer.ggml.pre", &t.Pre),
		optional(f, "tokenizer.ggml.token_type", &t.Types),
		optional(f, "tokenizer.ggml.scores", &t.Scores),
		optional(f, "tokenizer.ggml.merges", &t.Merges),
		optional(f, "tokenizer.chat_template", &t.ChatTemplate),
		f.special("tokenizer.ggml.bos_token_id", &t.BOS, len(t.Tokens)),
		f.special("tokenizer.ggml.eos_token_id", &t.EOS, len(t.Tokens)),
		f.special("tokenizer.ggml.eot_token_id", &t.EOT, len(t.Tokens)),
		f.special("tokenizer.ggml.unknown_token_id", &t.Unknown, len(t.Tokens)),
		f.special("tokenizer.ggml.padding_token_id", &t.Padding, len(t.Tokens)),
	)
	t.AddBOS, t.AddSpacePrefix = llama, llama // llama.cpp's choice where the file does not say
	err = errors.Join(err,
		optional(f, "tokenizer.ggml.add_bos_token", &t.AddBOS),
		optional(f, "tokenizer.ggml.add_eos_token", &t.AddEOS),
		optional(f, "tokenizer.ggml.add_space_prefix", &t.AddSpacePrefix),
	)
	if err != nil {
		return t, err
	}
	if t.Types == nil {
		t.Types = make([]TokenType, len(t.Tokens))
		for i := range t.Types {
			t.Types[i] = TokenNormal
		}
	}
	if len(t.Types) != len(t.Tokens) || t.Scores != nil && len(t.Scores) != len(t.Tokens) {
		return t, fmt.Errorf("read model %s: tokenizer: %w", f.name,
			corrupt("%d tokens, %d types and %d scores", len(t.Tokens), len(t.Types), len(t.Scores)))
	}
	return t, nil
}

// optional sets value when the metadata has the key.
func optional[T any](f *File, key string, value *T) error {
	v, err := get[T](f, key)
	if errors.Is(err, forager.ErrNotFound) {
		return nil
	}
	if err == nil {
		*value = v
	}
	return err
}

// special sets a token id, or NoToken where the file has none or says so.
func (f *File) special(key string, id *int32, tokens int) error {
	value := int64(NoToken)
	if err := optional(f, key, &value); err != nil {
		return err
	}
	*id = NoToken
	switch {
	case value == int64(NoToken) || value == math.MaxUint32:
	case value < 0 || value >= int64(tokens):
		return f.failKey(key, corrupt("id %d, the vocabulary has %d tokens", value, tokens))
	default:
		*id = int32(value)
	}
	return nil
}
