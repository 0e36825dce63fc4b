package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/chat"
	"github.com/forager-rl/forager/policy/gguf"
	"github.com/forager-rl/forager/policy/lm"
	"github.com/forager-rl/forager/policy/tokenizer"
)

const tokenizerFile = "tokenizer.json"

// language is how a policy reads and writes: its tokenizer, and the form of its
// prompts.
type language struct {
	tokenizer *tokenizer.Tokenizer
	template  *chat.Template
}

// Prompt implements actor.Prompter.
func (l language) Prompt(messages []policy.Message) ([]int32, error) {
	return l.template.Encode(l.tokenizer, messages, true)
}

// loadPolicy reads a model and its language from a folder or a .gguf file; the
// empty path is the built-in warm start. template is PolicyConfig.ChatTemplate.
func loadPolicy(path, template string) (*lm.Model, language, error) {
	if path == "" {
		model, tok, err := builtin.Load()
		return model, language{tok, chat.Plain()}, err
	}
	l, err := loadLanguage(path, template)
	if err != nil {
		return nil, l, err
	}
	model, err := lm.Load(path)
	if err != nil {
		return nil, l, fmt.Errorf("load policy: %w", err)
	}
	if n := l.tokenizer.VocabSize(); n > model.Arch.VocabSize {
		return nil, l, fmt.Errorf("load policy %s: the tokenizer has %d tokens, the model %d: %w", path, n, model.Arch.VocabSize, forager.ErrArchitecture)
	}
	return model, l, nil
}

// loadLanguage reads the tokenizer and the chat template of a policy alone.
func loadLanguage(path, template string) (language, error) {
	load := loadFolderLanguage
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		load = loadGGUFLanguage
	}
	l, own, err := load(path)
	if err != nil {
		return l, fmt.Errorf("load policy: %w", err)
	}
	switch template {
	case TemplateAuto:
		l.template, err = own()
		if errors.Is(err, forager.ErrNotFound) {
			l.template, err = chat.Plain(), nil // not trained to chat
		}
	case TemplateNone:
		l.template = chat.Plain()
	default:
		l.template, err = chat.Load(template)
	}
	return l, err
}

// LoadTokenizer reads the tokenizer of a policy folder or .gguf file.
func LoadTokenizer(path string) (*tokenizer.Tokenizer, error) {
	l, err := loadLanguage(path, TemplateNone)
	return l.tokenizer, err
}

// loadFolderLanguage reads the tokenizer, and later the template, of a folder.
func loadFolderLanguage(dir string) (language, func() (*chat.Template, error), error) {
	tok, err := tokenizer.Load(filepath.Join(dir, tokenizerFile))
	return language{tokenizer: tok}, func() (*chat.Template, error) { return chat.Load(dir) }, err
}

func loadGGUFLanguage(path string) (l language, own func() (*chat.Template, error), err error) {
	f, err := gguf.Open(path)
	if err != nil {
		return l, nil, err
	}
	defer f.Close()
	t, err := f.Tokenizer()
	if err != nil {
		return l, nil, err
	}
	l.tokenizer, err = tokenizer.FromGGUF(tokenizer.GGUF{
		Model: t.Model, Pre: t.Pre, Tokens: t.Tokens, Types: t.Types, Scores: t.Scores, Merges: t.Merges,
		BOS: t.BOS, EOS: t.EOS, Stop: []int32{t.EOT}, AddBOS: t.AddBOS, AddSpacePrefix: t.AddSpacePrefix,
	})
	return l, func() (*chat.Template, error) {
		if t.ChatTemplate == "" {
			return nil, forager.ErrNotFound
		}
		return chat.Parse(t.ChatTemplate)
	}, err
}

// savePolicy writes a policy folder, whole or not at all.
func savePolicy(dir string, model *lm.Model, l language) error {
	return wholeFolder(dir, func(temp string) error {
		return errors.Join(model.Save(temp), l.save(temp))
	})
}

// save writes what loadLanguage reads.
func (l language) save(dir string) error {
	config, err := l.tokenizer.MarshalConfig()
	if err != nil {
		return err
	}
	generation, err := json.Marshal(map[string]any{"eos_token_id": l.tokenizer.StopTokens()})
	if err != nil {
		return err
	}
	files := map[string][]byte{"tokenizer_config.json": config, "generation_config.json": generation}
	if source := l.template.Source(); source != "" {
		files["chat_template.jinja"] = []byte(source)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return l.tokenizer.Save(filepath.Join(dir, tokenizerFile))
}

// wholeFolder fills a folder beside its final place and moves it there, unless
// something is there already, from another process that did the same.
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
		if _, there := os.Stat(dir); there == nil {
			return nil
		}
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
