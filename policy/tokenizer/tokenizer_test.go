package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/policy"
)

var episodes = []string{
	"<think> I should look it up.</think>\n<search> capital of France </search>\n\n<information>Doc 1: Paris is the capital of France.</information>",
	"The capital of Norway is Oslo, the capital of Sweden is Stockholm; they're 416 km apart.",
	"Which river flows through the capital of the country that borders Spain and Italy?",
}

// small is a tokeniser with some merges and two tags.
func small(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := Train(slices.Values(episodes), TrainOptions{VocabSize: 300, Added: []string{"<search>", "</search>"}, EOS: "<|endoftext|>"})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestAddedTokens(t *testing.T) {
	tok := small(t)
	search, ok := tok.ID("<search>")
	if !ok || string(tok.TokenBytes(search)) != "<search>" {
		t.Fatalf("<search> is %d, %v", search, ok)
	}
	text := "a<search>b</search><<search>"
	if ids := tok.Encode(text); !slices.Contains(ids, search) || tok.Decode(ids) != text {
		t.Errorf("encode gives %v", ids)
	}
	plain := tok.EncodePlain(text)
	if tok.Decode(plain) != text {
		t.Errorf("plain text becomes %q", tok.Decode(plain))
	}
	for _, id := range plain {
		if id >= tok.EOS() {
			t.Errorf("plain text %v has the added token %d", plain, id)
		}
	}
}

// The parts of a text are encoded as one, but what is plain makes no added token,
// not even together with its neighbours.
func TestEncodeParts(t *testing.T) {
	normalized, err := Parse(edit(t, func(f map[string]any) {
		f["normalizer"] = map[string]any{"type": "NFC"}
		for _, a := range f["added_tokens"].([]any) {
			a.(map[string]any)["normalized"] = true
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]*Tokenizer{"raw": small(t), "normalized": normalized} {
		parts := func(texts ...string) []int32 { // every other is plain
			var list []policy.Part
			for i, text := range texts {
				list = append(list, policy.Part{Text: text, Plain: i%2 == 1})
			}
			return tok.EncodeParts(list...)
		}
		search, _ := tok.ID("<search>")
		for _, texts := range [][]string{
			{"", "<search>"}, {"<", "search", ">"}, {"<sea", "rch>"}, {"", "<search", ">"}, {"", "a<search>b"}, {"e\u0301<search", ">"},
		} {
			ids := parts(texts...)
			if slices.Contains(ids, search) || tok.Decode(ids) != tok.normalize(strings.Join(texts, ""), true) {
				t.Errorf("%s: %q gives %v", name, texts, ids)
			}
		}
		for _, texts := range [][]string{
			{"The cap", "ital of", " the<search>capital"}, {"", "the ", "<search>", " cap", "ital</search>"}, {"<search>"}, {"", ""}, {"a ", "", "b"},
		} {
			if got, want := parts(texts...), tok.Encode(strings.Join(texts, "")); !slices.Equal(got, want) {
				t.Errorf("%s: %q gives %v, want %v", name, texts, got, want)
			}
		}
	}
	if got := joinRanges(joinParts([]policy.Part{{Text: "a", Plain: true}, {Text: "b", Plain: true}, {Text: "c"}, {Text: "", Plain: true}, {Text: "d", Plain: true}})); got != "[ab]c[d]" {
		t.Errorf("plain ranges %s", got)
	}
}

// joinRanges shows plain ranges in brackets.
func joinRanges(text string, plain ranges) string {
	for _, r := range slices.Backward(plain) {
		text = text[:r.start] + "[" + text[r.start:r.end] + "]" + text[r.end:]
	}
	return text
}

func TestLongestAddedTokenWins(t *testing.T) {
	m := newMatcher([]match{{"<a", 1}, {"<a>b", 2}, {"<a>", 3}})
	for text, want := range map[string][3]int{"x<a>bc": {1, 5, 2}, "<a>c": {0, 3, 3}, "<<a": {1, 3, 1}, "abc": {3, 3, 0}, "": {0, 0, 0}} {
		if start, end, id := m.find(text, 0, nil); [3]int{start, end, int(id)} != want {
			t.Errorf("%q: %d, %d, %d", text, start, end, id)
		}
	}
}

func TestUnknownIDs(t *testing.T) {
	tok := small(t)
	if got := tok.Decode([]int32{-1, int32(tok.VocabSize()), 0, 1 << 30}); got != "!" {
		t.Errorf("decoded %q", got)
	}
	if _, err := tok.WithEOS(int32(tok.VocabSize())); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("end of sequence: %v", err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	tok := small(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "tokenizer.json")
	if err := tok.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range episodes {
		if !slices.Equal(tok.Encode(text), again.Encode(text)) {
			t.Errorf("other tokens of %q", text)
		}
	}
	if again.EOS() != tok.EOS() || again.VocabSize() != tok.VocabSize() {
		t.Errorf("end %d of %d, want %d of %d", again.EOS(), again.VocabSize(), tok.EOS(), tok.VocabSize())
	}

	// tokenizer_config.json decides on the end of a sequence.
	search, _ := tok.ID("<search>")
	other, err := tok.WithEOS(search)
	if err != nil {
		t.Fatal(err)
	}
	config, err := other.MarshalConfig()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		want   int32
	}{"written": {string(config), search}, "object": {`{"eos_token":{"content":"<search>"}}`, search}, "none": {`{"eos_token":null}`, tok.EOS()}} {
		if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		if again, err = Load(path); err != nil || again.EOS() != c.want {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(`{"eos_token":"<nope>"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), "<nope>") {
		t.Errorf("unknown end of sequence: %v", err)
	}
}

// The files of a checkpoint name one or several ends.
func TestStopTokens(t *testing.T) {
	tok := small(t)
	end, _ := tok.ID("<|endoftext|>")
	search, _ := tok.ID("<search>")
	closing, _ := tok.ID("</search>")
	for name, c := range map[string]struct {
		files map[string]string
		eos   int32
		stops []int32
		bos   int32
	}{
		"none":        {nil, end, []int32{end}, -1},
		"one":         {map[string]string{"config.json": `{"eos_token_id":298,"bos_token_id":299}`}, search, []int32{search}, closing},
		"list":        {map[string]string{"generation_config.json": `{"eos_token_id":[298,297]}`, "config.json": `{"eos_token_id":299}`}, search, []int32{end, search, closing}, -1},
		"chat":        {map[string]string{"tokenizer_config.json": `{"eos_token":"</search>","bos_token":{"content":"<search>"},"add_bos_token":true}`, "generation_config.json": `{"eos_token_id":[297,299]}`}, closing, []int32{end, closing}, search},
		"unknown ids": {map[string]string{"config.json": `{"eos_token_id":[2000,-1],"bos_token_id":2000}`}, end, []int32{end}, -1},
		"null":        {map[string]string{"config.json": `{"eos_token_id":null}`, "tokenizer_config.json": `{"eos_token":null,"bos_token":null}`}, end, []int32{end}, -1},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "tokenizer.json")
		if err := tok.Save(path); err != nil {
			t.Fatal(err)
		}
		for file, content := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Load(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.EOS() != c.eos || !slices.Equal(got.StopTokens(), c.stops) || got.BOS() != c.bos || len(got.Opening()) > 0 != (name == "chat") {
			t.Errorf("%s: ends with %d, %v, begins with %d, %v", name, got.EOS(), got.StopTokens(), got.BOS(), got.Opening())
		}
		config, err := got.MarshalConfig()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), config, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(path)
		if err != nil || again.EOS() != got.EOS() || again.BOS() != got.BOS() || !slices.Equal(again.Opening(), got.Opening()) {
			t.Errorf("%s: written, %v, it is another", name, err)
		}
	}
	for file, content := range map[string]string{"config.json": `{"eos_token_id":"x"}`, "generation_config.json": `[`, "tokenizer_config.json": `{"bos_token":"<nope>"}`} {
		dir := t.TempDir()
		path := filepath.Join(dir, "tokenizer.json")
		if err := errors.Join(tok.Save(path), os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestConcurrentEncode(t *testing.T) {
	tok := small(t)
	text := strings.Join(episodes, "\n")
	want := tok.Encode(text)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				if !slices.Equal(tok.Encode(text), want) {
					t.Error("other tokens in another goroutine")
				}
			}
		})
	}
	group.Wait()
}

// edit changes one field of a good file.
func edit(t *testing.T, change func(f map[string]any)) []byte {
	t.Helper()
	data, err := small(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	change(f)
	if data, err = json.Marshal(f); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBothMergeForms(t *testing.T) {
	pairs := edit(t, func(f map[string]any) {
		model := f["model"].(map[string]any)
		for i, m := range model["merges"].([]any) {
			model["merges"].([]any)[i] = strings.Fields(m.(string))
		}
	})
	tok, err := Parse(pairs)
	if err != nil {
		t.Fatal(err)
	}
	if text := episodes[0]; !slices.Equal(tok.Encode(text), small(t).Encode(text)) {
		t.Error("the pair form gives other tokens")
	}
}

// The composed and the decomposed form of a character are one token sequence.
func TestNFC(t *testing.T) {
	tok, err := Parse(edit(t, func(f map[string]any) { f["normalizer"] = map[string]any{"type": "NFC"} }))
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Decode(tok.Encode("<search>e\u0301</search>")); got != "<search>\u00e9</search>" {
		t.Errorf("got %q", got)
	}
}

func TestBadFiles(t *testing.T) {
	model := func(f map[string]any) map[string]any { return f["model"].(map[string]any) }
	vocab := func(f map[string]any) map[string]any { return model(f)["vocab"].(map[string]any) }
	added := func(f map[string]any) map[string]any { return f["added_tokens"].([]any)[1].(map[string]any) }
	split := func(pattern string) any {
		return map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Split", "pattern": map[string]any{"Regex": pattern}, "behavior": "Isolated"},
			map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}}}
	}
	for name, c := range map[string]struct {
		change func(f map[string]any)
		kind   error
		want   string
	}{
		"pre-tokeniser":   {func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "Metaspace"} }, forager.ErrSchema, `"Metaspace"`},
		"no pre":          {func(f map[string]any) { f["pre_tokenizer"] = nil }, forager.ErrSchema, "pre_tokenizer"},
		"pattern":         {func(f map[string]any) { f["pre_tokenizer"] = split(`\w+`) }, forager.ErrSchema, `\\w+`},
		"prefix space":    {func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "ByteLevel"} }, forager.ErrSchema, "add_prefix_space"},
		"normaliser":      {func(f map[string]any) { f["normalizer"] = map[string]any{"type": "Lowercase"} }, forager.ErrSchema, `"Lowercase"`},
		"decoder":         {func(f map[string]any) { f["decoder"] = map[string]any{"type": "WordPiece"} }, forager.ErrSchema, `"WordPiece"`},
		"model":           {func(f map[string]any) { model(f)["type"] = "Unigram" }, forager.ErrSchema, `"Unigram"`},
		"dropout":         {func(f map[string]any) { model(f)["dropout"] = 0.1 }, forager.ErrSchema, "dropout 0.1"},
		"suffix":          {func(f map[string]any) { model(f)["end_of_word_suffix"] = "</w>" }, forager.ErrSchema, "</w>"},
		"lstrip":          {func(f map[string]any) { added(f)["lstrip"] = true }, forager.ErrSchema, `"<search>"`},
		"missing byte":    {func(f map[string]any) { delete(vocab(f), "Ġ") }, forager.ErrCorrupt, "byte 0x20"},
		"shared id":       {func(f map[string]any) { vocab(f)["zzz"] = 0 }, forager.ErrCorrupt, `"!" and "zzz" share id 0`},
		"negative id":     {func(f map[string]any) { vocab(f)["zzz"] = -1 }, forager.ErrCorrupt, `"zzz" has id -1`},
		"huge id":         {func(f map[string]any) { vocab(f)["zzz"] = 1 << 30 }, forager.ErrCorrupt, `"zzz" has id 1073741824`},
		"word id":         {func(f map[string]any) { vocab(f)["zzz"] = "a" }, forager.ErrCorrupt, "vocab"},
		"unknown merge":   {func(f map[string]any) { model(f)["merges"].([]any)[0] = "q q" }, forager.ErrCorrupt, `merge 0 ("q", "q")`},
		"one-word merge":  {func(f map[string]any) { model(f)["merges"].([]any)[0] = "q" }, forager.ErrCorrupt, `merge "q"`},
		"three-way merge": {func(f map[string]any) { model(f)["merges"].([]any)[0] = []string{"a", "b", "c"} }, forager.ErrCorrupt, "two tokens"},
		"added id taken":  {func(f map[string]any) { added(f)["id"] = 0 }, forager.ErrCorrupt, `"<search>" share id 0`},
		"added two ids":   {func(f map[string]any) { vocab(f)["<search>"] = 1000 }, forager.ErrCorrupt, `"<search>" has ids 1000`},
		"added empty":     {func(f map[string]any) { added(f)["content"] = "" }, forager.ErrCorrupt, "empty"},
		"added byte":      {func(f map[string]any) { added(f)["content"] = "é"; added(f)["id"] = vocab(f)["é"] }, forager.ErrSchema, `"é"`},
	} {
		_, err := Parse(edit(t, c.change))
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v with %s", name, err, c.kind, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(path, []byte(`{"model":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, forager.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("cut file: %v", err)
	}
	if _, err := Load(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// FuzzRoundTrip: every string, valid UTF-8 or not, comes back, under each rule.
func FuzzRoundTrip(f *testing.F) {
	for _, text := range append([]string{"", "\xff\xfe<search>", "a\u2003\n b\r\n\r\n c", "🦙e\u0301 it'S 12345", "<<search></search"}, episodes...) {
		f.Add(text)
	}
	tok := small(f)
	rules := []wordRule{}
	for _, pattern := range []string{gpt2Pattern, qwen2Pattern, llama3Pattern} {
		rule, ok := wordRuleFor(pattern)
		if !ok {
			f.Fatal(pattern)
		}
		rules = append(rules, rule)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, rule := range rules {
			other := *tok
			other.word = rule
			if got := other.Decode(other.Encode(text)); got != text {
				t.Fatalf("%q became %q", text, got)
			}
			plain := other.EncodePlain(text)
			if got := other.Decode(plain); got != text {
				t.Fatalf("plain %q became %q", text, got)
			}
			if len(plain) > 0 && slices.Max(plain) >= tok.EOS() {
				t.Fatalf("plain %q has an added token", text)
			}
		}
	})
}

// FuzzParse: a file that parses gives a tokeniser that loses nothing.
func FuzzParse(f *testing.F) {
	data, err := small(f).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "the capital")
	f.Add([]byte(fixtures(f)[0].Tokenizer), "the capital")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := Parse(data)
		if err != nil {
			if !errors.Is(err, forager.ErrCorrupt) && !errors.Is(err, forager.ErrSchema) {
				t.Fatalf("unnamed error: %v", err)
			}
			return
		}
		lossless := !tok.nfc && keeps(tok, text) && !slices.Contains(tok.byteIDs[:], missing)
		if got := tok.Decode(tok.Encode(text)); got != text && lossless {
			t.Fatalf("%q became %q", text, got)
		}
		written, err := tok.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(written); err != nil {
			t.Fatal(err)
		}
	})
}
