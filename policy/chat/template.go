package chat

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/nikolalohinski/gonja/v2/exec"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/tokenizer"
)

// Template turns messages into tokens. It is immutable and safe for concurrent
// use. Make one with Load, Parse or Plain.
type Template struct {
	source    string
	compiled  *exec.Template // nil in Plain
	variables map[string]any
	now       func() time.Time
}

// Plain is for models that were not trained to chat: contents follow each other
// with a newline between them, after what the tokenizer puts before every text.
// Roles do not show. Parts are encoded one by one.
func Plain() *Template { return &Template{} }

// Parse reads the source of a chat template.
func Parse(source string) (*Template, error) {
	compiled, err := compile(source)
	if err != nil {
		return nil, fmt.Errorf("parse chat template: %w: %w", err, forager.ErrSchema)
	}
	return &Template{source: source, compiled: compiled, now: time.Now}, nil
}

// Source is the text that Parse read, empty for Plain.
func (t *Template) Source() string { return t.source }

// With gives the same template with more variables, such as enable_thinking of
// Qwen 3.
func (t *Template) With(variables map[string]any) *Template {
	other := *t
	other.variables = maps.Clone(t.variables)
	if other.variables == nil {
		other.variables = map[string]any{}
	}
	maps.Copy(other.variables, variables)
	return &other
}

// Encode gives the tokens of a chat. With generate, the beginning of an answer
// follows the messages, which the model is to complete. It fails with
// forager.ErrSchema when the template refuses the messages.
func (t *Template) Encode(tok *tokenizer.Tokenizer, messages []policy.Message, generate bool) ([]int32, error) {
	if t.compiled == nil {
		return encodePlain(tok, messages), nil
	}
	parts, err := t.render(tok, messages, generate)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w: %w", err, forager.ErrSchema)
	}
	return tok.EncodeParts(parts...), nil
}

func encodePlain(tok *tokenizer.Tokenizer, messages []policy.Message) []int32 {
	var parts []policy.Part
	add := func(p policy.Part) {
		if last := len(parts) - 1; last >= 0 && parts[last].Plain == p.Plain {
			parts[last].Text += p.Text
			return
		}
		parts = append(parts, p)
	}
	for i, m := range messages {
		if i > 0 {
			add(policy.Part{Text: "\n"})
		}
		for _, p := range m.Content {
			add(p)
		}
	}
	ids := append([]int32{}, tok.Opening()...)
	for _, p := range parts {
		ids = append(ids, tok.EncodeParts(p)...)
	}
	return ids
}

// role is what a template may put into a special token, such as "<|user|>".
var role = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// render runs the template.
func (t *Template) render(tok *tokenizer.Tokenizer, messages []policy.Message, generate bool) ([]policy.Part, error) {
	disguise := newDisguise(t.source)
	for _, m := range messages {
		if !role.MatchString(m.Role) {
			return nil, fmt.Errorf("role %q of a message is not a name", m.Role)
		}
		for _, p := range m.Content {
			if !p.Plain {
				disguise.reserve(p.Text)
			}
		}
	}
	chat := make(list, len(messages))
	for i, m := range messages {
		var content bytes.Buffer
		for _, p := range m.Content {
			text := p.Text
			if p.Plain {
				var err error
				if text, err = disguise.put(text); err != nil {
					return nil, err
				}
			} else if !utf8.ValidString(text) {
				return nil, fmt.Errorf("a message of role %s is not UTF-8", m.Role)
			}
			content.WriteString(text)
		}
		chat[i] = map[string]any{"role": m.Role, "content": content.String()}
	}
	variables := map[string]any{"tools": nil, "documents": nil}
	for name, id := range map[string]int32{"bos_token": tok.BOS(), "eos_token": tok.EOS()} {
		if id >= 0 {
			variables[name] = string(tok.TokenBytes(id))
		}
	}
	maps.Copy(variables, t.variables)
	variables["messages"], variables["add_generation_prompt"] = chat, generate
	variables["raise_exception"] = raise
	variables["strftime_now"] = func(format string) (string, error) { return strftime(t.now(), format) }
	text, err := execute(t.compiled, variables)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(text) { // the library iterates over bytes of strings
		return nil, errors.New("the template cuts characters in pieces")
	}
	return disguise.take(text), nil
}
