package tokenizer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

// ggufLlama is a table in the way of SentencePiece: unknown, controls, bytes, then
// characters and pieces with scores.
func ggufLlama() GGUF {
	g := GGUF{Model: "llama", BOS: 1, EOS: 2, Stop: []int32{-1}, AddBOS: true, AddSpacePrefix: true}
	add := func(kind int32, score float32, tokens ...string) {
		for _, token := range tokens {
			g.Tokens, g.Types, g.Scores = append(g.Tokens, token), append(g.Types, kind), append(g.Scores, score)
			score--
		}
	}
	add(ggufUnknown, 0, "<unk>")
	add(ggufControl, 0, "<s>", "</s>")
	for b := range 256 {
		add(ggufByte, 0, byteToken(b))
	}
	add(ggufNormal, 0, "▁a", "ab", "▁b", "cd", "abcd", "▁ab", "bc", "ca", "▁▁", "da", "dab", "bb", "▁abc", "ad")
	add(ggufNormal, -100, "▁", "a", "b", "c", "d", "<", "s", ">")
	add(ggufUserDefined, 0, "<tag>")
	add(5, 0, "unused")
	return g
}

// ggufBytes is a table of bytes and the merges of small.
func ggufBytes(t testing.TB, pre string) GGUF {
	t.Helper()
	tok := small(t)
	g := GGUF{Model: "gpt2", Pre: pre, BOS: -1, EOS: tok.EOS(), Tokens: slices.Clone(tok.spelling)}
	for id := range g.Tokens {
		kind := int32(ggufNormal)
		if _, added := tok.isAdded[int32(id)]; added {
			kind = ggufControl
		}
		g.Types = append(g.Types, kind)
	}
	for _, m := range tok.merges {
		g.Merges = append(g.Merges, tok.spelling[m.left]+" "+tok.spelling[m.right])
	}
	return g
}

func TestGGUFLlama(t *testing.T) {
	tok, err := FromGGUF(ggufLlama())
	if err != nil {
		t.Fatal(err)
	}
	if tok.BOS() != 1 || tok.EOS() != 2 || !slices.Equal(tok.Opening(), []int32{1}) || !slices.Equal(tok.StopTokens(), []int32{2}) {
		t.Errorf("begins %d, %v, ends %d, %v", tok.BOS(), tok.Opening(), tok.EOS(), tok.StopTokens())
	}
	text := "ab abcd<s> é<tag>\n"
	tag, _ := tok.ID("<tag>")
	if ids := tok.Encode(text); tok.Decode(ids) != text || !slices.Contains(ids, 1) || !slices.Contains(ids, tag) {
		t.Errorf("%q becomes %v, %q", text, ids, tok.Decode(ids))
	}
	if ids := tok.EncodePlain(text); tok.Decode(ids) != text || slices.Contains(ids, 1) || slices.Contains(ids, tag) {
		t.Errorf("plain %q becomes %v", text, ids)
	}
	data, err := tok.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Encode(text), tok.Encode(text)) || !slices.Equal(again.Opening(), []int32{1}) {
		t.Errorf("written and read, %q becomes %v", text, again.Encode(text))
	}
	if _, known := tok.ID("unused"); known {
		t.Error("an unused token is in the vocabulary")
	}

	g := ggufLlama()
	g.AddSpacePrefix, g.AddBOS = false, false
	if tok, err = FromGGUF(g); err != nil || tok.Decode(tok.Encode(" ab")) != " ab" || len(tok.Opening()) > 0 {
		t.Errorf("without a prefix: %v", err)
	}
}

func TestGGUFBytes(t *testing.T) {
	text := "The capital<search>it's 1984  IT'S\n\n e\u0301"
	for pre, rule := range map[string]wordRule{
		"": gpt2Word, "gpt-2": gpt2Word, "default": gpt2Word, "smollm": digitWord,
		"qwen2":     func(text string) int { return qwenWord(text, 1) },
		"llama-bpe": func(text string) int { return qwenWord(text, 3) },
	} {
		tok, err := FromGGUF(ggufBytes(t, pre))
		if err != nil {
			t.Errorf("%s: %v", pre, err)
			continue
		}
		want := *small(t)
		want.word, want.nfc = rule, pre == "qwen2"
		if got := tok.Encode(text); !slices.Equal(got, want.Encode(text)) {
			t.Errorf("%s: %v, want %v", pre, got, want.Encode(text))
		}
		if tok.EOS() != want.EOS() || !slices.Equal(tok.StopTokens(), []int32{want.EOS()}) {
			t.Errorf("%s: ends with %d, %v", pre, tok.EOS(), tok.StopTokens())
		}
		data, err := tok.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(data); err != nil || !slices.Equal(again.Encode(text), tok.Encode(text)) {
			t.Errorf("%s: written and read: %v", pre, err)
		}
	}
}

// Endings that a file does not name are known.
func TestGGUFEndings(t *testing.T) {
	g := ggufBytes(t, "qwen2")
	search, _ := small(t).ID("<search>")
	g.EOS = search
	tok, err := FromGGUF(g)
	if end := small(t).EOS(); err != nil || tok.EOS() != search || !slices.Equal(tok.StopTokens(), []int32{end, search}) {
		t.Errorf("%v: ends with %v", err, tok.StopTokens())
	}
}

func TestBadGGUF(t *testing.T) {
	bytes := func(change func(*GGUF)) GGUF { g := ggufBytes(t, "gpt-2"); change(&g); return g }
	llama := func(change func(*GGUF)) GGUF { g := ggufLlama(); change(&g); return g }
	for name, c := range map[string]struct {
		tables GGUF
		kind   error
		want   string
	}{
		"model":      {bytes(func(g *GGUF) { g.Model = "bert" }), forager.ErrSchema, `"bert"`},
		"pre":        {bytes(func(g *GGUF) { g.Pre = "exotic" }), forager.ErrSchema, `"exotic"`},
		"prefix":     {bytes(func(g *GGUF) { g.AddSpacePrefix = true }), forager.ErrSchema, "add_space_prefix"},
		"types":      {bytes(func(g *GGUF) { g.Types = g.Types[1:] }), forager.ErrCorrupt, "types"},
		"merge":      {bytes(func(g *GGUF) { g.Merges[0] = "x" }), forager.ErrCorrupt, "merge 0"},
		"merge none": {bytes(func(g *GGUF) { g.Merges[0] = "zz qq" }), forager.ErrCorrupt, "merge 0"},
		"twice":      {bytes(func(g *GGUF) { g.Tokens[1] = g.Tokens[0] }), forager.ErrCorrupt, "has ids 0 and 1"},
		"byte":       {bytes(func(g *GGUF) { g.Tokens[slices.Index(g.Tokens, "a")] = "aaaaaa" }), forager.ErrCorrupt, "0x61"},
		"end":        {bytes(func(g *GGUF) { g.EOS = 5000 }), forager.ErrCorrupt, "5000"},
		"beginning":  {llama(func(g *GGUF) { g.BOS = 5000 }), forager.ErrCorrupt, "5000"},
		"scores":     {llama(func(g *GGUF) { g.Scores = nil }), forager.ErrCorrupt, "scores"},
		"empty":      {GGUF{Model: "llama", BOS: -1, EOS: -1}, forager.ErrCorrupt, "byte 0x00"},
	} {
		if _, err := FromGGUF(c.tables); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v with %s", name, err, c.kind, c.want)
		}
	}
}

// FuzzGGUF: tables that are taken give a tokeniser that loses nothing.
func FuzzGGUF(f *testing.F) {
	f.Add("a\nb\nab\nabc", "a b\nab c", []byte{1, 3, 5}, true, "a<s> b")
	f.Add(" x\nb", "", []byte{4}, true, " x x")
	f.Add("x▁\n▁▁\n<t>", "", []byte{4, 1, 2}, false, "▁ \xff")
	f.Fuzz(func(t *testing.T, tokens, merges string, kinds []byte, llama bool, text string) {
		g := ggufBytes(t, "smollm")
		if llama {
			g = ggufLlama()
		} else if merges != "" {
			g.Merges = append(g.Merges, strings.Split(merges, "\n")...)
		}
		for i, token := range strings.Split(tokens, "\n") {
			kind := byte(1)
			if i < len(kinds) {
				kind = kinds[i]
			}
			g.Tokens, g.Types = append(g.Tokens, token), append(g.Types, int32(kind))
			if llama {
				g.Scores = append(g.Scores, float32(i))
			}
		}
		tok, err := FromGGUF(g)
		if err != nil {
			if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("unnamed error: %v", err)
			}
			return
		}
		if got := tok.Decode(tok.Encode(text)); got != text {
			t.Fatalf("%q became %q", text, got)
		}
		if got := tok.Decode(tok.EncodePlain(text)); got != text {
			t.Fatalf("plain %q became %q", text, got)
		}
	})
}
