// Command tokens is our side of bench/tokens.py: it answers every line of the
// input with one line. A request names a tokenizer.json or a .gguf file and has
// a text; the answer is its token ids.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager/policy/gguf"
	"github.com/forager-rl/forager/policy/tokenizer"
)

type request struct {
	File string `json:"file"`
	Text string `json:"text"`
	Save string `json:"save"` // write the tokenizer here instead
}

type answer struct {
	IDs     []int32 `json:"ids"`
	Decoded string  `json:"decoded"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	loaded := map[string]*tokenizer.Tokenizer{}
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
		if r.Save != "" {
			if err := tok.Save(r.Save); err != nil {
				return err
			}
		} else {
			a.IDs = tok.Encode(r.Text)
			a.Decoded = tok.Decode(a.IDs)
		}
		if err := encoder.Encode(a); err != nil {
			return err
		}
	}
}

func load(path string) (*tokenizer.Tokenizer, error) {
	if filepath.Ext(path) != ".gguf" {
		return tokenizer.Load(path)
	}
	file, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	tables, err := file.Tokenizer()
	if err != nil {
		return nil, err
	}
	return tokenizer.FromGGUF(tokenizer.GGUF{
		Model: tables.Model, Pre: tables.Pre, Tokens: tables.Tokens, Types: tables.Types, Scores: tables.Scores, Merges: tables.Merges,
		BOS: tables.BOS, EOS: tables.EOS, Stop: []int32{tables.EOT},
		AddBOS: tables.AddBOS, AddSpacePrefix: tables.AddSpacePrefix,
	})
}
