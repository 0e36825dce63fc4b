package protocol

import (
	"embed"
	"fmt"
	"os"
	"strings"

	"github.com/forager-rl/forager"
)

//go:embed templates/*.txt
var builtIn embed.FS

const placeholder = "{question}"

// Template turns a question into the text of a prompt. A template is a text
// file that holds the placeholder {question} once.
type Template struct{ before, after string }

// ParseTemplate reads a template's text.
func ParseTemplate(text string) (Template, error) {
	if n := strings.Count(text, placeholder); n != 1 {
		return Template{}, fmt.Errorf("prompt template holds %s %d times, expected once", placeholder, n)
	}
	before, after, _ := strings.Cut(text, placeholder)
	return Template{before, after}, nil
}

// LoadTemplate finds a built-in template by name, "search" (the full
// instruction, for instruction-tuned models) or "short" (for the small
// built-in policy), or else reads a file.
func LoadTemplate(nameOrPath string) (Template, error) {
	text, err := builtIn.ReadFile("templates/" + nameOrPath + ".txt")
	if err != nil {
		if text, err = os.ReadFile(nameOrPath); err != nil {
			return Template{}, forager.WithHint(fmt.Errorf("load prompt template: %w", err),
				"name a built-in template (search, short) or a text file")
		}
	}
	template, err := ParseTemplate(string(text))
	if err != nil {
		return Template{}, fmt.Errorf("load %s: %w", nameOrPath, err)
	}
	return template, nil
}

// Render puts the normalised question in place of the placeholder.
func (t Template) Render(question string) string {
	return t.before + NormalizeQuestion(question) + t.after
}

// Split gives the text before and after the question, for callers that encode
// the question as untrusted text.
func (t Template) Split() (before, after string) { return t.before, t.after }

// Prompt is the prompt of a task: the one that its data row carries, as it
// stands, or else one user message made with the template.
func (t Template) Prompt(task *forager.Task) []forager.Message {
	if len(task.Prompt) > 0 {
		return task.Prompt
	}
	return []forager.Message{{Role: "user", Content: t.Render(task.Question)}}
}
