// Command tokens is our side of bench/tokens.py: it answers every line of the
// input with one line. A request names a tokenizer.json or a .gguf file and has
// a text or a chat; the answer is its token ids.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/chat"
	"github.com/forager-rl/forager/policy/gguf"
	"github.com/forager-rl/forager/policy/tokenizer"
)

type request struct {
	File string `json:"file"`
	Text string `json:"text"`
	// A chat instead of a text: its template and, from outside, its messages.
	Template string `json:"template"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	Generate bool `json:"generate"`
	// Save writes the tokenizer here instead.
	Save string `json:"save"`
}

type answer struct {
	IDs      []int32 `json:"ids"`
	Decoded  string  `json:"decoded"`
	Template string  `json:"template"` // that of the file, after Save
	Refused  string  `json:"refused"`  // why there are no ids
}

// model is what a file holds.
type model struct {
	*tokenizer.Tokenizer
	template string
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	loaded := map[string]model{}
	templates := map[string]*chat.Template{}
	buffered := bufio.NewWriter(out)
	encoder := json.NewEncoder(buffered)
	for decoder := json.NewDecoder(in); ; {
		var r request
		if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
			return buffered.Flush()
		} else if err != nil {
			return err
		}
		tok, ok := loaded[r.File]
		if !ok {
			var err error
			if tok, err = load(r.File); err != nil {
				return err
			}
			loaded[r.File] = tok
		}
		var a answer
		switch {
		case r.Save != "":
			a.Template = tok.template
			if err := tok.Save(r.Save); err != nil {
				return err
			}
		case r.Template != "":
			template, ok := templates[r.Template]
			if !ok {
				var err error
				if template, err = chat.Parse(r.Template); err != nil {
					return err
				}
				templates[r.Template] = template
			}
			var messages []policy.Message
			for _, m := range r.Messages {
				messages = append(messages, policy.Message{Role: m.Role, Content: []policy.Part{{Text: m.Content, Plain: true}}})
			}
			var err error
			if a.IDs, err = template.Encode(tok.Tokenizer, messages, r.Generate); err != nil {
				a.Refused = err.Error()
			}
		default:
			a.IDs = tok.Encode(r.Text)
			a.Decoded = tok.Decode(a.IDs)
		}
		if err := encoder.Encode(a); err != nil {
			return err
		}
	}
}

func load(path string) (model, error) {
	if filepath.Ext(path) != ".gguf" {
		tok, err := tokenizer.Load(path)
		return model{tok, ""}, err
	}
	file, err := gguf.Open(path)
	if err != nil {
		return model{}, err
	}
	defer func() { _ = file.Close() }() // only read
	tables, err := file.Tokenizer()
	if err != nil {
		return model{}, err
	}
	tok, err := tokenizer.FromGGUF(tokenizer.GGUF{
		Model: tables.Model, Pre: tables.Pre, Tokens: tables.Tokens, Types: tables.Types, Scores: tables.Scores, Merges: tables.Merges,
		BOS: tables.BOS, EOS: tables.EOS, Stop: []int32{tables.EOT},
		AddBOS: tables.AddBOS, AddSpacePrefix: tables.AddSpacePrefix,
	})
	return model{tok, tables.ChatTemplate}, err
}
