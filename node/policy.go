package node

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/gguf"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
)

const tokenizerFile = "tokenizer.json"

// loadPolicy reads a model and its tokenizer from a folder or a .gguf file; the
// empty path is the built-in warm start.
func loadPolicy(path string) (*lm.Model, *tokenizer.Tokenizer, error) {
	if path == "" {
		return builtin.Load()
	}
	tok, err := loadTokenizer(path)
	if err != nil {
		return nil, nil, err
	}
	model, err := lm.Load(path)
	if err != nil {
		return nil, nil, fmt.Errorf("load policy: %w", err)
	}
	if err := fits(tok, model); err != nil {
		return nil, nil, fmt.Errorf("load policy %s: %w", path, err)
	}
	return model, tok, nil
}

// loadTokenizer reads the tokenizer of a policy alone.
func loadTokenizer(path string) (*tokenizer.Tokenizer, error) {
	load := loadGGUFTokenizer
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		load = func(dir string) (*tokenizer.Tokenizer, error) {
			return tokenizer.Load(filepath.Join(dir, tokenizerFile))
		}
	}
	tok, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	return tok, nil
}

func loadGGUFTokenizer(path string) (*tokenizer.Tokenizer, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := f.Tokenizer()
	if err != nil {
		return nil, err
	}
	return tokenizer.FromGGUF(tokenizer.GGUF{
		Model: t.Model, Pre: t.Pre, Tokens: t.Tokens, Types: t.Types, Scores: t.Scores, Merges: t.Merges,
		BOS: t.BOS, EOS: t.EOS, Stop: []int32{t.EOT}, AddBOS: t.AddBOS, AddSpacePrefix: t.AddSpacePrefix,
	})
}

func fits(tok *tokenizer.Tokenizer, m *lm.Model) error {
	if tok.VocabSize() > m.Arch.VocabSize {
		return fmt.Errorf("the tokenizer has %d tokens, the model %d: %w", tok.VocabSize(), m.Arch.VocabSize, forager.ErrArchitecture)
	}
	return nil
}

// savePolicy writes a policy folder, whole or not at all.
func savePolicy(dir string, model *lm.Model, tok *tokenizer.Tokenizer) error {
	return wholeFolder(dir, func(temp string) error {
		if err := model.Save(temp); err != nil {
			return err
		}
		return saveTokenizer(temp, tok)
	})
}

// saveTokenizer writes what loadTokenizer reads.
func saveTokenizer(dir string, tok *tokenizer.Tokenizer) error {
	config, err := tok.MarshalConfig()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), config, 0o644); err != nil {
		return err
	}
	return tok.Save(filepath.Join(dir, tokenizerFile))
}

// wholeFolder fills a folder beside its final place and moves it there, unless
// something is there already.
func wholeFolder(dir string, fill func(temp string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	if err := fill(temp); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	return nil
}

// trainable implements learner.Model with the native engine's trainer.
type trainable struct{ trainer *lm.Trainer }

func native(seqs []learner.Sequence) []lm.Sequence {
	list := make([]lm.Sequence, len(seqs))
	for i, s := range seqs {
		list[i] = lm.Sequence{Tokens: s.Tokens, Mask: s.Mask}
	}
	return list
}

// Logprobs implements learner.Scorer. Only masked positions are filled.
func (t trainable) Logprobs(seqs []learner.Sequence) ([][]float32, error) {
	return t.trainer.Logprobs(native(seqs))
}

// Accumulate implements learner.Model.
func (t trainable) Accumulate(seqs []learner.Sequence, loss func(i int, logp, grad []float32)) error {
	return t.trainer.Accumulate(native(seqs), loss)
}

// Update implements learner.Model.
func (t trainable) Update(learningRate float32) (float64, bool) {
	return t.trainer.Update(learningRate)
}
