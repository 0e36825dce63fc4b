package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
)

// SentencePiece writes a space as "▁" (U+2581) and a byte of a character that
// the vocabulary lacks as "<0x0A>". Source: Kudo and Richardson 2018. Here a
// text keeps its spaces, and a "▁" that is in a text is spelled in bytes, so
// that it does not come back as a space.
const blank = "▁"

// byteToken is the spelling of a byte.
func byteToken(b int) string { return fmt.Sprintf("<0x%02X>", b) }

// prefixRule says before which sections of a text, cut at added tokens, a space
// is put, because words in the middle of a text have one.
type prefixRule uint8

const (
	noPrefix          prefixRule = iota
	prefixSections               // before every section
	metaspaceSections            // before every section that does not begin with a space
	metaspaceFirst               // the same, at the beginning of the text alone
)

func (r prefixRule) applies(section string, first bool) bool {
	if section == "" {
		return false
	}
	switch r {
	case prefixSections:
		return true
	case metaspaceSections:
		return section[0] != ' '
	case metaspaceFirst:
		return first && section[0] != ' '
	}
	return false
}

// byteFallback sets up what comes before and after a model of characters.
func (t *Tokenizer) byteFallback(s stages) error {
	replaced, err := t.prepend(s)
	if err != nil {
		return err
	}
	if err := t.metaspace(s, replaced); err != nil {
		return err
	}
	return t.checkBlankDecoder(s)
}

// prepend reads the normaliser: a space before the text, spaces as blanks.
func (t *Tokenizer) prepend(s stages) (replaced bool, err error) {
	steps, err := parseSteps("normalizer", s.Normalizer)
	if err != nil {
		return false, err
	}
	for _, step := range steps {
		switch {
		case step.Type == "Prepend" && step.Prepend == blank && t.prefix == noPrefix:
			t.prefix = prefixSections
		case step.Type == "Replace" && step.Pattern.String == " " && step.Content == blank:
			replaced = true
		default:
			return false, unsupported("normalizer %s with byte_fallback", s.Normalizer)
		}
	}
	if len(steps) > 0 && !replaced {
		return false, unsupported("normalizer %s with byte_fallback", s.Normalizer)
	}
	return replaced, nil
}

// metaspace reads the pre-tokeniser, which can do the same instead.
func (t *Tokenizer) metaspace(s stages, replaced bool) error {
	steps, err := parseSteps("pre_tokenizer", s.PreTokenizer)
	if err != nil {
		return err
	}
	if len(steps) == 0 && replaced {
		return nil
	}
	if len(steps) != 1 || replaced || steps[0].Type != "Metaspace" || steps[0].Replacement != blank {
		return unsupported("pre_tokenizer %s with byte_fallback", s.PreTokenizer)
	}
	step := steps[0]
	scheme := step.PrependScheme
	if scheme == "" { // files of early versions
		scheme = "always"
		if step.AddPrefixSpace != nil && !*step.AddPrefixSpace {
			scheme = "never"
		}
	}
	switch scheme {
	case "always":
		t.prefix = metaspaceSections
	case "first":
		t.prefix = metaspaceFirst
	case "never":
	default:
		return unsupported("pre_tokenizer Metaspace with prepend_scheme %q", scheme)
	}
	if step.Split == nil || *step.Split {
		t.word = blankWord
	}
	return nil
}

// checkBlankDecoder makes sure that tokens are joined as Decode does it.
func (t *Tokenizer) checkBlankDecoder(s stages) error {
	steps, err := parseSteps("decoder", s.Decoder)
	if err != nil {
		return err
	}
	blanks, fallback, stripped := false, false, false
	for _, step := range steps {
		switch {
		case step.Type == "Replace" && step.Pattern.String == blank && step.Content == " ":
			blanks = true
		case step.Type == "Metaspace" && step.Replacement == blank:
			blanks, stripped = true, step.PrependScheme != "never" && (step.AddPrefixSpace == nil || *step.AddPrefixSpace)
		case step.Type == "ByteFallback":
			fallback = true
		case step.Type == "Fuse":
		case step.Type == "Strip" && step.Content == " " && step.Start == 1 && step.Stop == 0:
			stripped = true
		default:
			return unsupported("decoder %s with byte_fallback", s.Decoder)
		}
	}
	if !blanks || !fallback {
		return unsupported("decoder %s with byte_fallback", s.Decoder)
	}
	if stripped != (t.prefix != noPrefix) {
		return unsupported("decoder %s with a text that begins otherwise", s.Decoder)
	}
	return nil
}

// unblank gives the bytes of a token.
func unblank(token string) []byte {
	if b, ok := parseByteToken(token); ok {
		return []byte{b}
	}
	return []byte(strings.ReplaceAll(token, blank, " "))
}

func parseByteToken(token string) (byte, bool) {
	if len(token) != len("<0x00>") || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

// blankWord cuts a text before every space.
func blankWord(text string) int {
	if i := strings.IndexByte(text[1:], ' '); i >= 0 {
		return 1 + i
	}
	return len(text)
}

// blanksWord cuts a text before every run of spaces. Where no merge joins
// something with a space after it, that changes no token, and words can be
// remembered.
func blanksWord(text string) int {
	n := len(text) - len(strings.TrimLeft(text, " "))
	if i := strings.IndexByte(text[n:], ' '); i >= 0 {
		return n + i
	}
	return len(text)
}

// wholeText does not cut at all.
func wholeText(text string) int { return len(text) }
