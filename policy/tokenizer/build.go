package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/forager-rl/forager"
)

// maxID bounds the tables that a file can make us allocate. No published
// vocabulary is a tenth of it.
const maxID = 1 << 22

// build checks a file and makes its tables.
func build(f file) (*Tokenizer, error) {
	if err := f.Model.check(); err != nil {
		return nil, err
	}
	t := &Tokenizer{
		ids: make(map[string]int32, len(f.Model.Vocab)+len(f.Added)), isAdded: map[int32]bool{},
		stages: f.stages, flags: f.Model.flags, encoders: &sync.Pool{New: func() any { return newEncoder() }},
		bos: -1,
	}
	setUp := t.byteLevel
	if f.Model.ByteFallback {
		setUp = t.byteFallback
	}
	if err := setUp(f.stages); err != nil {
		return nil, err
	}
	for _, step := range []func(file) error{t.addVocabulary, t.addTokens, t.addSymbols, t.addMerges, t.addOpening} {
		if err := step(f); err != nil {
			return nil, err
		}
	}
	t.eos = t.guessEOS()
	t.addStops(t.eos)
	return t, nil
}

// check refuses what would change the tokens.
func (m model) check() error {
	set := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Type != "BPE" && m.Type != "": // files of early versions name no type
		return unsupported("model %q", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return unsupported("model with dropout %g", *m.Dropout)
	case set(m.Prefix):
		return unsupported("model with continuing_subword_prefix %q", *m.Prefix)
	case set(m.Suffix):
		return unsupported("model with end_of_word_suffix %q", *m.Suffix)
	}
	return nil
}

func (t *Tokenizer) addVocabulary(f file) error {
	unspell := newAlphabet().unspell
	if f.Model.ByteFallback {
		unspell = unblank
	}
	for token, id := range f.Model.Vocab {
		if err := t.addToken(token, unspell(token), id); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tokenizer) addToken(token string, content []byte, id int32) error {
	if id < 0 || id > maxID {
		return corrupt("token %q has id %d, want 0 to %d", token, id, maxID)
	}
	if token == "" {
		return corrupt("token %d is empty", id)
	}
	if grow := int(id) + 1 - len(t.bytes); grow > 0 {
		t.bytes = append(t.bytes, make([][]byte, grow)...)
		t.spelling = append(t.spelling, make([]string, grow)...)
	}
	if t.bytes[id] != nil {
		return corrupt("tokens %q and %q share id %d", min(token, t.spelling[id]), max(token, t.spelling[id]), id)
	}
	t.bytes[id] = slices.Clip(content)
	t.spelling[id] = token
	t.ids[token] = id
	return nil
}

func (t *Tokenizer) addTokens(f file) error {
	var raw, normalized []match
	seen := map[string]bool{}
	for _, a := range f.Added {
		switch {
		case a.SingleWord || a.LStrip || a.RStrip:
			return unsupported("added token %q with single_word, lstrip or rstrip", a.Content)
		case a.Normalized && t.prefix == prefixSections:
			return unsupported("added token %q that is normalized, where texts get a space in front", a.Content)
		case a.Content == "" || seen[a.Content]:
			return corrupt("added token %d (%q) is empty or repeated", a.ID, a.Content)
		}
		seen[a.Content] = true
		id, known := t.ids[a.Content]
		if known && id != a.ID {
			return corrupt("added token %q has ids %d and %d", a.Content, id, a.ID)
		}
		if !known {
			if err := t.addToken(a.Content, []byte(a.Content), a.ID); err != nil {
				return err
			}
		} else if string(t.bytes[id]) != a.Content { // "é" also spells byte 0xe9
			return unsupported("added token %q that the model reads as bytes %q", a.Content, t.bytes[id])
		}
		t.isAdded[a.ID] = known
		if !a.Normalized {
			raw = append(raw, match{a.Content, a.ID})
		} else if t.nfc {
			normalized = append(normalized, match{norm.NFC.String(a.Content), a.ID})
		} else {
			normalized = append(normalized, match{a.Content, a.ID})
		}
	}
	t.added = slices.SortedFunc(slices.Values(f.Added), func(a, b addedToken) int { return int(a.ID - b.ID) })
	t.addedRaw, t.addedNormalized = newMatcher(raw), newMatcher(normalized)
	return nil
}

// missing stands for a byte that the vocabulary lacks.
const missing = -1

// addSymbols finds the token of every byte, and of every character if the model
// begins with those. Added tokens are not among them: plain text must not become
// one. A vocabulary of bytes may lack some that ordinary text does not have.
func (t *Tokenizer) addSymbols(f file) error {
	letters := newAlphabet()
	for b := range t.byteIDs {
		spelling := string(letters.char[b])
		if f.Model.ByteFallback {
			spelling = byteToken(b)
		}
		id, ok := t.ids[spelling]
		if _, added := t.isAdded[id]; !ok || added {
			if f.Model.ByteFallback || ordinary(byte(b)) {
				return corrupt("no token for byte %#02x (%q)", b, spelling)
			}
			id = missing
		}
		t.byteIDs[b] = id
	}
	if f.Model.ByteFallback {
		t.charIDs = map[rune]int32{}
	}
	if f.Model.IgnoreMerges {
		t.wholeWords = make(map[string]int32, len(f.Model.Vocab))
	}
	for token, id := range f.Model.Vocab {
		if _, added := t.isAdded[id]; added {
			continue
		}
		if _, isByte := parseByteToken(token); f.Model.ByteFallback && (isByte || strings.Contains(token, " ")) {
			continue // spaces are spelled as blanks
		}
		if t.wholeWords != nil {
			t.wholeWords[string(t.bytes[id])] = id
		}
		if char, n := utf8.DecodeRune(t.bytes[id]); t.charIDs != nil && n == len(t.bytes[id]) {
			t.charIDs[char] = id
		}
	}
	return nil
}

// ordinary reports whether a byte is needed: all are but control characters and
// what begins no character, or only characters that Unicode has not assigned.
func ordinary(b byte) bool {
	switch {
	case b < ' ':
		return b == '\t' || b == '\n' || b == '\r'
	case b < 0xc0:
		return b != 0x7f
	}
	return 0xc2 <= b && b <= 0xf0 || b == 0xf3 || b == 0xf4
}

// addMerges leaves out merges that would let plain text become an added token
// or another text.
func (t *Tokenizer) addMerges(f file) error {
	t.merges = make([]merge, len(f.Model.Merges))
	t.ranks = make(map[pair]int32, len(f.Model.Merges))
	separable := true
	for rank, rule := range f.Model.Merges {
		left, ok1 := f.Model.Vocab[rule[0]]
		right, ok2 := f.Model.Vocab[rule[1]]
		id, ok3 := f.Model.Vocab[rule[0]+rule[1]]
		if !ok1 || !ok2 || !ok3 {
			return corrupt("merge %d (%q, %q) names a token that is not in the vocabulary", rank, rule[0], rule[1])
		}
		t.merges[rank] = merge{pair{left, right}, id}
		_, added := t.isAdded[id]
		if a, b := t.bytes[left], t.bytes[right]; !added && string(a)+string(b) == string(t.bytes[id]) {
			t.ranks[pair{left, right}] = int32(rank)
			separable = separable && (a[len(a)-1] == ' ' || b[0] != ' ')
		}
	}
	if t.word == nil { // there is no pre-tokeniser
		t.word = wholeText
		if separable && t.wholeWords == nil {
			t.word = blanksWord
		}
	}
	return nil
}

func (t *Tokenizer) addOpening(f file) (err error) {
	if t.opening, err = f.openingTokens(); err != nil {
		return err
	}
	for _, id := range t.opening {
		if t.TokenBytes(id) == nil {
			return corrupt("post_processor names token %d, which does not exist", id)
		}
	}
	if len(t.opening) > 0 {
		t.bos = t.opening[0]
	}
	return nil
}

func (t *Tokenizer) guessEOS() int32 {
	eos := int32(-1)
	for _, a := range t.added {
		switch {
		case !a.Special:
		case a.Content == "<|endoftext|>":
			return a.ID
		case eos >= 0:
			eos = -2 // several
		case eos == -1:
			eos = a.ID
		}
	}
	return max(eos, -1)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, forager.ErrCorrupt)...)
}
