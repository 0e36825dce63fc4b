package actor

import (
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/search/protocol"
)

// Prompter writes the messages before the first action as tokens, in the form
// that the model was trained to read.
type Prompter interface {
	Prompt(messages []policy.Message) ([]int32, error)
}

// prompt encodes what comes before the first action. The question is data: tags
// in it are not recognised as tokens of the protocol.
func (p *Player) prompt(task forager.Task) ([]int32, error) {
	before, after := p.template.Split()
	question := policy.Part{Text: protocol.NormalizeQuestion(task.Question), Plain: true}
	messages := []policy.Message{{Role: "user", Content: []policy.Part{{Text: before}, question, {Text: after}}}}
	if len(task.Prompt) > 0 {
		messages = nil
		for _, m := range task.Prompt {
			messages = append(messages, policy.Message{Role: m.Role, Content: []policy.Part{{Text: m.Content}}})
		}
	}
	ids, err := p.prompter.Prompt(messages)
	if err != nil {
		return nil, fmt.Errorf("prompt of task %s: %w", task.ID, err)
	}
	return ids, nil
}

// contents is the Prompter of models that were not trained to chat.
type contents struct{ tokenizer policy.Tokenizer }

// Prompt implements Prompter.
func (c contents) Prompt(messages []policy.Message) ([]int32, error) {
	var ids []int32
	text := ""
	for i, m := range messages {
		if i > 0 {
			text += "\n"
		}
		for _, part := range m.Content {
			if !part.Plain {
				text += part.Text
				continue
			}
			ids = append(ids, c.tokenizer.Encode(text)...)
			ids = append(ids, c.tokenizer.EncodePlain(part.Text)...)
			text = ""
		}
	}
	return append(ids, c.tokenizer.Encode(text)...), nil
}
