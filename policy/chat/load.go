package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// Load reads the chat template of a checkpoint folder, from the first of
// chat_template.jinja, chat_template.json and tokenizer_config.json that has
// one; or from a file of its own, whatever its name. A folder without a template
// fails with forager.ErrNotFound.
func Load(path string) (*Template, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load chat template: %w", err)
	}
	if !info.IsDir() {
		return loadFile(path, sourceItself)
	}
	for _, f := range []struct {
		name   string
		source func(data []byte) (string, error)
	}{
		{"chat_template.jinja", sourceItself},
		{"chat_template.json", sourceInJSON},
		{"tokenizer_config.json", sourceInJSON},
	} {
		t, err := loadFile(filepath.Join(path, f.name), f.source)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, forager.ErrNotFound) {
			continue
		}
		return t, err
	}
	return nil, fmt.Errorf("load chat template: %s has none: %w", path, forager.ErrNotFound)
}

func loadFile(path string, source func(data []byte) (string, error)) (*Template, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load chat template: %w", err)
	}
	text, err := source(data)
	if err != nil {
		return nil, fmt.Errorf("load chat template %s: %w", path, err)
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return t, nil
}

func sourceItself(data []byte) (string, error) { return string(data), nil }

// sourceInJSON reads the field chat_template: a text, or a list of named ones,
// of which the one called "default" is for chats.
func sourceInJSON(data []byte) (string, error) {
	var file struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return "", fmt.Errorf("%w: %w", err, forager.ErrCorrupt)
	}
	if len(file.Template) == 0 || string(file.Template) == "null" {
		return "", forager.ErrNotFound
	}
	var text string
	if json.Unmarshal(file.Template, &text) == nil {
		return text, nil
	}
	var named []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(file.Template, &named); err != nil {
		return "", fmt.Errorf("chat_template: %w: %w", err, forager.ErrCorrupt)
	}
	for _, n := range named {
		if n.Name == "default" {
			return n.Template, nil
		}
	}
	return "", fmt.Errorf("chat_template has no %q among %d: %w", "default", len(named), forager.ErrSchema)
}
