package chat

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
	"github.com/forager-rl/forager/policy"
	"github.com/forager-rl/forager/policy/tokenizer"
)

// The ids are those of transformers, see bench/fixtures/chats.py.
func TestGolden(t *testing.T) {
	folder := realdata.Path(t, "tokenizers", "qwen3")
	template, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	tok := unpack(t, filepath.Join(folder, "tokenizer.json.gz"))
	expected, err := os.ReadFile(filepath.Join("testdata", "qwen3.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Messages []struct{ Role, Content string }
		Generate bool
		Text     string
		IDs      []int32
	}
	if err := json.Unmarshal(expected, &cases); err != nil || len(cases) != 14 {
		t.Fatalf("%d cases: %v", len(cases), err)
	}
	for _, c := range cases {
		for _, plain := range []bool{false, true} {
			var messages []policy.Message
			tags := false
			for _, m := range c.Messages {
				messages = append(messages, policy.Message{Role: m.Role, Content: []policy.Part{{Text: m.Content, Plain: plain}}})
				tags = tags || strings.Contains(m.Content, "<")
			}
			if plain && tags {
				continue // they would be special tokens, or move the template
			}
			parts, err := template.render(tok, messages, c.Generate)
			if err != nil || text(parts) != c.Text {
				t.Errorf("got %q, %v, want %q", text(parts), err, c.Text)
			}
			ids, err := template.Encode(tok, messages, c.Generate)
			if err != nil || !slices.Equal(ids, c.IDs) {
				t.Errorf("%q, plain %v: %v, %v, want %v", c.Text, plain, ids, err, c.IDs)
			}
		}
	}
}

func unpack(t *testing.T, path string) *tokenizer.Tokenizer {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
