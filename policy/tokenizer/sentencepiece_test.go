package tokenizer

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

type fixture struct {
	Name      string
	Tokenizer json.RawMessage
	Cases     []struct {
		Text    string
		IDs     []int32
		Decoded string
	}
}

// fixtures are tokenizers and tokens made by bench/fixtures/vocabularies.py.
func fixtures(t testing.TB) []fixture {
	t.Helper()
	data, err := os.ReadFile("testdata/tokenizers.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []fixture
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 7 {
		t.Fatalf("%d fixtures", len(all))
	}
	return all
}

func fixtureTokenizer(t testing.TB, name string) *Tokenizer {
	t.Helper()
	for _, f := range fixtures(t) {
		if f.Name == name {
			tok, err := Parse(f.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
	}
	t.Fatal(name)
	return nil
}

// The ids are those of the tokenizers library.
func TestFixtures(t *testing.T) {
	for _, f := range fixtures(t) {
		tok, err := Parse(f.Tokenizer)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		written, err := tok.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Cases {
			for _, tok := range []*Tokenizer{tok, again} {
				if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) {
					t.Errorf("%s: %q gives %v, want %v", f.Name, c.Text, got, c.IDs)
				}
			}
			// The library joins the tokens of one section as we do. Behind an added
			// token it leaves the prefixed space, and Metaspace has lost one.
			want := c.Text
			if !strings.Contains(c.Text, "<s>") {
				want = c.Decoded
			} else if strings.HasPrefix(f.Name, "metaspace") {
				continue
			}
			if got := tok.Decode(c.IDs); got != want {
				t.Errorf("%s: %v is %q, want %q", f.Name, c.IDs, got, want)
			}
		}
	}
}

// keeps reports whether decoding gives a text back: Metaspace drops a space at
// the beginning of a section.
func keeps(tok *Tokenizer, text string) bool {
	return tok.prefix != metaspaceSections && (tok.prefix != metaspaceFirst || !strings.HasPrefix(text, " "))
}

func FuzzSentencePiece(f *testing.F) {
	for _, text := range []string{"", " ", "  a<s> b", "\xff\u2581\x00", "<0x41><unk>", "日本 The capital"} {
		f.Add(text)
	}
	var toks []*Tokenizer
	for _, x := range fixtures(f) {
		if x.Name != "smollm" {
			toks = append(toks, fixtureTokenizer(f, x.Name))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for i, tok := range toks {
			ids, plain := tok.Encode(text), tok.EncodePlain(text)
			if keeps(tok, text) && (tok.Decode(ids) != text || tok.Decode(plain) != text) {
				t.Fatalf("%d: %q becomes %q, plain %q", i, text, tok.Decode(ids), tok.Decode(plain))
			}
			for _, id := range plain {
				if id < 3 {
					t.Fatalf("%d: plain %q has the added token %d", i, text, id)
				}
			}
			// Cutting before spaces changes nothing.
			whole := *tok
			if tok.prefix == prefixSections {
				whole.word = wholeText
				if got := whole.Encode(text); !slices.Equal(got, ids) {
					t.Fatalf("%q gives %v, uncut %v", text, ids, got)
				}
			}
		}
	})
}

// Bytes of tokens are those of the text, which stop strings rely on.
func TestTokenBytes(t *testing.T) {
	tok := fixtureTokenizer(t, "prepend")
	for token, want := range map[string]string{"▁capital": " capital", "<0x0A>": "\n", "<0xFF>": "\xff", "▁▁": "  ", "<s>": "<s>", "e": "e"} {
		id, ok := tok.ID(token)
		if !ok || string(tok.TokenBytes(id)) != want {
			t.Errorf("%s is %q, want %q", token, tok.TokenBytes(id), want)
		}
	}
	if got := tok.Opening(); len(got) != 1 || got[0] != 1 || tok.BOS() != 1 {
		t.Errorf("texts begin with %v", got)
	}
}

// A merge may not build an added token, nor a byte's name, out of plain text.
func TestMergesForgeNothing(t *testing.T) {
	data := fixtures(t)[0].Tokenizer
	var f map[string]any
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	model := f["model"].(map[string]any)
	vocab := model["vocab"].(map[string]any)
	for i, token := range []string{"<", ">", "<s", "/", "0", "x", "A", "<0", "<0x", "<0x4", "1>", "<0x41"} {
		if _, ok := vocab[token]; !ok {
			vocab[token] = 1000 + i
		}
	}
	vocab["4"], vocab["1"] = 2000, 2001
	merges := [][]string{{"<", "s"}, {"<s", ">"}, {"<", "0"}, {"<0", "x"}, {"<0x", "4"}, {"<0x4", "1"}, {"<0x41", ">"}}
	model["merges"] = append(model["merges"].([]any), anys(merges)...)
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"<s>", "a<s>", "<0x41>"} {
		ids := tok.EncodePlain(text)
		if tok.Decode(ids) != text || slices.Contains(ids, 1) {
			t.Errorf("plain %q gives %v, %q", text, ids, tok.Decode(ids))
		}
	}
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = x
	}
	return out
}

func TestBadSentencePieceFiles(t *testing.T) {
	change := func(name string, to any) func(map[string]any) {
		return func(f map[string]any) { f[name] = to }
	}
	metaspace := map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}
	for name, c := range map[string]struct {
		change func(map[string]any)
		kind   error
		want   string
	}{
		"normaliser": {change("normalizer", map[string]any{"type": "NFC"}), forager.ErrSchema, "NFC"},
		"prepend":    {change("normalizer", map[string]any{"type": "Prepend", "prepend": "▁"}), forager.ErrSchema, "Prepend"},
		"twice":      {change("pre_tokenizer", metaspace), forager.ErrSchema, "Metaspace"},
		"neither":    {change("normalizer", nil), forager.ErrSchema, "pre_tokenizer"},
		"no decoder": {change("decoder", nil), forager.ErrSchema, "decoder"},
		"not undone": {change("decoder", map[string]any{"type": "Sequence", "decoders": []any{map[string]any{"type": "Replace", "pattern": map[string]any{"String": "▁"}, "content": " "}, map[string]any{"type": "ByteFallback"}}}), forager.ErrSchema, "begins otherwise"},
		"no byte":    {func(f map[string]any) { delete(f["model"].(map[string]any)["vocab"].(map[string]any), "<0x07>") }, forager.ErrCorrupt, "<0x07>"},
		"normalized": {func(f map[string]any) { f["added_tokens"].([]any)[1].(map[string]any)["normalized"] = true }, forager.ErrSchema, `"<s>"`},
		"no beginning": {func(f map[string]any) {
			f["post_processor"].(map[string]any)["special_tokens"] = map[string]any{}
		}, forager.ErrCorrupt, `"<s>"`},
		"wrong beginning": {func(f map[string]any) {
			f["post_processor"].(map[string]any)["special_tokens"].(map[string]any)["<s>"].(map[string]any)["ids"] = []int{9999}
		}, forager.ErrCorrupt, "9999"},
	} {
		var f map[string]any
		if err := json.Unmarshal(fixtures(t)[0].Tokenizer, &f); err != nil {
			t.Fatal(err)
		}
		c.change(f)
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(data); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v with %s", name, err, c.kind, c.want)
		}
	}
}

// plainScores is SentencePiece's way: of all neighbours join those whose result
// has the best score, the leftmost first.
func plainScores(g GGUF, tokens []string) []string {
	scores := map[string]float32{}
	for id, token := range g.Tokens {
		if g.kind(id) == ggufNormal {
			scores[token] = g.Scores[id]
		}
	}
	for {
		best := -1
		for i := range len(tokens) - 1 {
			score, ok := scores[tokens[i]+tokens[i+1]]
			if ok && (best < 0 || score > scores[tokens[best]+tokens[best+1]]) {
				best = i
			}
		}
		if best < 0 {
			return tokens
		}
		tokens = slices.Replace(tokens, best, best+2, tokens[best]+tokens[best+1])
	}
}

func TestScores(t *testing.T) {
	g := ggufLlama()
	tok, err := FromGGUF(g)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		var text strings.Builder
		for range random.IntN(30) {
			text.WriteByte("abcd "[random.IntN(5)])
		}
		want := plainScores(g, strings.Split(strings.ReplaceAll(" "+text.String(), " ", blank), ""))
		if text.Len() == 0 {
			want = nil
		}
		var got []string
		for _, id := range tok.Encode(text.String()) {
			got = append(got, tok.spelling[id])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q gives %q, want %q", text.String(), got, want)
		}
	}
}
