package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The expected words are those of the tokenizers library 0.23.
func TestWords(t *testing.T) {
	for pattern, cases := range map[string]map[string]string{
		gpt2Pattern: {
			"Hello  world":      "Hello| | world",
			"it's IT'S we'll":   "it|'s| IT|'|S| we|'ll",
			" \n\n a":           " \n\n| a",
			"a\n\nb":            "a|\n|\n|b",
			"a  ":               "a|  ",
			"x12345 67!?":       "x|12345| 67|!?",
			"<search> q</":      "<|search|>| q|</",
			"\u2003\u2003中文１２½": "\u2003|\u2003|中文|１２½",
		},
		qwen2Pattern: {
			"Hello  world":      "Hello| | world",
			"it's IT'LL a'ſx":   "it|'s| IT|'LL| a|'ſ|x",
			"a1234":             "a|1|2|3|4",
			" 12":               " |1|2",
			"(word) !!\r\n\n x": "(word|)| !!\r\n\n| x",
			"a \n \n  b":        "a| \n \n| | b",
			"\nword\tword":      "\n|word|\tword",
			"a   ":              "a|   ",
		},
		llama3Pattern: {
			"a1234567": "a|123|456|7",
		},
	} {
		rule, _ := wordRuleFor(pattern)
		for text, want := range cases {
			if got := strings.Join(cutWords(rule, text), "|"); got != want {
				t.Errorf("%.12s: %q gives %q, want %q", pattern, text, got, want)
			}
		}
	}
}

func cutWords(rule wordRule, text string) []string {
	var words []string
	for text != "" {
		n := rule(text)
		words = append(words, text[:n])
		text = text[n:]
	}
	return words
}

// plainMerge is BPE as the paper writes it: find the lowest rank, merge it
// everywhere, again.
func plainMerge(t *Tokenizer, word string) []int32 {
	var tokens []int32
	for i := range len(word) {
		tokens = append(tokens, t.byteIDs[word[i]])
	}
	for {
		best := int32(len(t.merges))
		for i := 1; i < len(tokens); i++ {
			if rank, ok := t.ranks[pair{tokens[i-1], tokens[i]}]; ok {
				best = min(best, rank)
			}
		}
		if int(best) == len(t.merges) {
			return tokens
		}
		tokens = t.merges[best].apply(tokens)
	}
}

func TestMergeAgainstPlain(t *testing.T) {
	text := strings.Repeat("abab aaaa abba aab bbb aaaaaaa abcabc bca cab ", 3)
	tok, err := Train(slices.Values([]string{text}), TrainOptions{VocabSize: 290, EOS: "<|endoftext|>"})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	e := newEncoder()
	for range 3000 {
		word := make([]byte, 1+random.IntN(40))
		for i := range word {
			word[i] = "abc "[random.IntN(4)]
		}
		if got, want := e.merge(nil, tok, string(word)), plainMerge(tok, string(word)); !slices.Equal(got, want) {
			t.Fatalf("%q: %v, want %v", word, got, want)
		}
	}
}

// A word of a megabyte takes a moment, not hours.
func TestLongWord(t *testing.T) {
	tok := small(t)
	text := strings.Repeat("capital", 1<<17)
	if tok.Decode(tok.Encode(text)) != text {
		t.Error("a long word is not kept")
	}
}
