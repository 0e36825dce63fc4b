// Package builtin carries the policy that training starts from when no other is
// named: a small transformer that knows the protocol of search episodes, made
// by "forager warmstart" and embedded in the binary. Node and tests import it.
package builtin

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
)

//go:generate go run ../../cmd/forager warmstart --out .

//go:embed config.json
var config []byte

//go:embed model.safetensors
var weights []byte

//go:embed tokenizer.json
var vocabulary []byte

// Load gives a model of its own to every caller, and the tokenizer.
func Load() (*lm.Model, *tokenizer.Tokenizer, error) {
	model, err := lm.Read(config, bytes.NewReader(weights), int64(len(weights)))
	if err != nil {
		return nil, nil, fmt.Errorf("built-in policy: %w", err)
	}
	tok, err := tokenizer.Parse(vocabulary)
	if err != nil {
		return nil, nil, fmt.Errorf("built-in policy: %w", err)
	}
	return model, tok, nil
}
