package tokenizer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/forager-rl/forager"
)

// GGUF is what a GGUF file says about its tokeniser. Fields are named after the
// keys "tokenizer.ggml.*"; those without a comment are as the file has them.
// Source: the GGUF specification, "Tokenizer".
type GGUF struct {
	Model  string    // "gpt2" is BPE over bytes, "llama" is SentencePiece's
	Pre    string    // the pre-tokeniser of "gpt2"
	Tokens []string  // by id
	Types  []int32   // token_type, by id; empty means that all are normal
	Scores []float32 // by id, of "llama"
	Merges []string  // of "gpt2", by rank: "a b"

	BOS  int32   // bos_token_id, -1 if absent
	EOS  int32   // eos_token_id, -1 if absent
	Stop []int32 // eot_token_id and the like, -1 if absent

	AddBOS         bool // add_bos_token: a text begins with BOS
	AddSpacePrefix bool // add_space_prefix, of "llama": a text gets a space in front
}

// The types of tokens.
const (
	ggufNormal      = 1
	ggufUnknown     = 2
	ggufControl     = 3
	ggufUserDefined = 4
	ggufByte        = 6
)

// endings are control tokens after which nothing follows. A GGUF file names but
// one or two of them, a Hugging Face folder all.
var endings = []string{"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>"}

// FromGGUF makes the tokeniser of a GGUF file. Written by Save, the tokenizers
// library reads it with the same results.
func FromGGUF(g GGUF) (*Tokenizer, error) {
	t, err := g.build()
	if err != nil {
		return nil, fmt.Errorf("read GGUF tokenizer: %w", err)
	}
	return t, nil
}

func (g GGUF) build() (*Tokenizer, error) {
	if len(g.Types) > 0 && len(g.Types) != len(g.Tokens) {
		return nil, corrupt("%d token types for %d tokens", len(g.Types), len(g.Tokens))
	}
	f := file{Model: model{flags: flags{Type: "BPE"}, Vocab: make(vocabulary, len(g.Tokens))}}
	for id, token := range g.Tokens {
		switch g.kind(id) {
		case ggufUnknown, ggufControl, ggufUserDefined:
			f.Added = append(f.Added, addedToken{ID: int32(id), Content: token, Special: g.kind(id) != ggufUserDefined})
		case ggufNormal, ggufByte:
		default:
			continue // unused, such as padding
		}
		if other, ok := f.Model.Vocab[token]; ok {
			return nil, corrupt("token %q has ids %d and %d", token, other, id)
		}
		f.Model.Vocab[token] = int32(id)
	}
	var err error
	switch g.Model {
	case "gpt2":
		err = g.byteLevel(&f)
	case "llama":
		err = g.sentencePiece(&f)
	default:
		err = unsupported("model %q", g.Model)
	}
	if err != nil {
		return nil, err
	}
	if g.addsBOS() {
		if f.PostProcessor, err = g.opening(); err != nil {
			return nil, err
		}
	}
	t, err := build(f)
	if err != nil {
		return nil, err
	}
	return t, g.name(t)
}

// kind is the type of a token.
func (g GGUF) kind(id int) int32 {
	if len(g.Types) == 0 {
		return ggufNormal
	}
	return g.Types[id]
}

// name sets the tokens that begin and end a text.
func (g GGUF) name(t *Tokenizer) error {
	for _, id := range append([]int32{g.BOS, g.EOS}, g.Stop...) {
		if id >= 0 && t.TokenBytes(id) == nil {
			return corrupt("token %d is named as a beginning or end, but is not in the vocabulary", id)
		}
	}
	t.bos = g.BOS
	if g.EOS >= 0 {
		t.setEOS(g.EOS)
	}
	t.addStops(g.Stop...)
	for _, ending := range endings {
		if id, ok := t.ids[ending]; ok && g.kind(int(id)) == ggufControl {
			t.addStops(id)
		}
	}
	return nil
}

func (g GGUF) addsBOS() bool {
	return g.BOS >= 0 && (g.AddBOS || g.Pre == "llama-bpe") // which llama.cpp takes for granted
}

// opening is the post-processor that puts BOS before a text.
func (g GGUF) opening() (json.RawMessage, error) {
	if int(g.BOS) >= len(g.Tokens) {
		return nil, corrupt("bos_token_id is %d of %d tokens", g.BOS, len(g.Tokens))
	}
	token := g.Tokens[g.BOS]
	special := func(segment int) any {
		return map[string]any{"SpecialToken": map[string]any{"id": token, "type_id": segment}}
	}
	sequence := func(name string, segment int) any {
		return map[string]any{"Sequence": map[string]any{"id": name, "type_id": segment}}
	}
	raw, err := json.Marshal(map[string]any{
		"type":           "TemplateProcessing",
		"single":         []any{special(0), sequence("A", 0)},
		"pair":           []any{special(0), sequence("A", 0), special(1), sequence("B", 1)},
		"special_tokens": map[string]any{token: map[string]any{"id": token, "ids": []int32{g.BOS}, "tokens": []string{token}}},
	})
	if err != nil {
		return nil, fmt.Errorf("write post_processor: %w", err)
	}
	return raw, nil
}

// byteLevel fills in the stages and merges of a model of bytes.
func (g GGUF) byteLevel(f *file) error {
	if g.AddSpacePrefix {
		return unsupported("model %q with add_space_prefix", g.Model)
	}
	switch g.Pre {
	case "gpt-2", "default", "":
		f.stages = gpt2Stages()
	case "smollm":
		f.stages = gpt2Stages()
		f.PreTokenizer = sequenceStage(json.RawMessage(`{"type":"Digits","individual_digits":true}`), f.PreTokenizer)
	case "qwen2":
		f.Normalizer = json.RawMessage(`{"type":"NFC"}`)
		f.stages.splitBy(qwen2Pattern)
	case "llama-bpe":
		f.stages.splitBy(llama3Pattern)
		f.Model.IgnoreMerges = true
	default:
		return unsupported("pre-tokenizer %q", g.Pre)
	}
	for number, text := range g.Merges {
		rule, err := parseMerge(text)
		if err != nil {
			return fmt.Errorf("merge %d: %w: %w", number, err, forager.ErrCorrupt)
		}
		f.Model.Merges = append(f.Model.Merges, rule)
	}
	return nil
}

// sentencePiece fills in the stages, and turns scores into merges.
func (g GGUF) sentencePiece(f *file) error {
	if len(g.Scores) != len(g.Tokens) {
		return corrupt("%d scores for %d tokens", len(g.Scores), len(g.Tokens))
	}
	f.Model.ByteFallback, f.Model.FuseUnknown = true, true
	replace := `{"type":"Replace","pattern":{"String":" "},"content":"▁"}`
	join := `{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}`
	if g.AddSpacePrefix {
		replace = `{"type":"Prepend","prepend":"▁"},` + replace
		join += `,{"type":"Strip","content":" ","start":1,"stop":0}`
	}
	f.Normalizer = json.RawMessage(`{"type":"Sequence","normalizers":[` + replace + `]}`)
	f.Decoder = json.RawMessage(`{"type":"Sequence","decoders":[` + join + `]}`)
	for id, token := range g.Tokens {
		if g.kind(id) == ggufUnknown {
			f.Model.UnknownToken = &token
		}
	}
	f.Model.Merges = g.scoredMerges(f.Model.Vocab)
	return nil
}

// scoredMerges lists every way to join two tokens to a third, best score first.
// SentencePiece joins the pair whose result has the best score; ways to make
// one result it takes from left to right, here they have an order of their own,
// that of the tokenizers library's conversion.
func (g GGUF) scoredMerges(vocab vocabulary) []mergeRule {
	type scored struct {
		rule        mergeRule
		score       float32
		left, right int // characters
	}
	var all []scored
	for id, token := range g.Tokens {
		if g.kind(id) != ggufNormal {
			continue
		}
		from := len(all)
		for cut := range token {
			left, ok1 := vocab[token[:cut]]
			right, ok2 := vocab[token[cut:]]
			if cut > 0 && ok1 && ok2 && g.kind(int(left)) == ggufNormal && g.kind(int(right)) == ggufNormal {
				all = append(all, scored{
					mergeRule{token[:cut], token[cut:]}, g.Scores[id],
					utf8.RuneCountInString(token[:cut]), utf8.RuneCountInString(token[cut:]),
				})
			}
		}
		slices.SortFunc(all[from:], func(a, b scored) int {
			return cmp.Or(cmp.Compare(vocab[a.rule[0]], vocab[b.rule[0]]), cmp.Compare(vocab[a.rule[1]], vocab[b.rule[1]]))
		})
	}
	slices.SortStableFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([]mergeRule, len(all))
	for i, m := range all {
		merges[i] = m.rule
	}
	return merges
}

// splitBy sets the stages of a model of bytes whose words follow a pattern.
func (s *stages) splitBy(pattern string) {
	quoted, err := json.Marshal(pattern)
	if err != nil {
		panic(err) // a string
	}
	s.PreTokenizer = sequenceStage(
		json.RawMessage(`{"type":"Split","pattern":{"Regex":`+string(quoted)+`},"behavior":"Isolated","invert":false}`), byteLevelStage(false))
	s.Decoder = byteLevelStage(false)
}

// byteLevelStage is a ByteLevel stage with GPT-2's pattern or without one.
func byteLevelStage(ownPattern bool) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":%v}`, ownPattern))
}

func sequenceStage(steps ...json.RawMessage) json.RawMessage {
	var list []string
	for _, step := range steps {
		list = append(list, string(step))
	}
	return json.RawMessage(`{"type":"Sequence","pretokenizers":[` + strings.Join(list, ",") + `]}`)
}
