package rubric

import (
	"regexp"
	"strings"
	"unicode"
)

// clean makes a stranger's text fit to stand in a prompt: one line of at most n
// characters (with " …" after a cut), valid UTF-8, visible characters only, and
// no chat markers. What a line starts with is thus always ours.
//
// Markers are the special tokens by which chat templates set roles, such as
// <|im_start|> or [INST]. Servers turn them into tokens wherever they stand, so
// their brackets are replaced by others that look like them.
func clean(text string, n int) string {
	text, whole := cut(text, n)
	text = strings.Map(visible, strings.ToValidUTF8(text, ""))
	text = squareMarker.ReplaceAllString(angles.Replace(text), "($1)")
	text = strings.Join(strings.Fields(text), " ")
	if !whole {
		text += " …"
	}
	return text
}

var (
	angles       = strings.NewReplacer("<", "‹", ">", "›", "＜", "‹", "＞", "›")
	squareMarker = regexp.MustCompile(`\[(/?[A-Za-z_]+)\]`) // [INST], [/INST], [gMASK], [CLS]
)

// oneLine gives text as a single line of visible characters.
func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.Map(visible, strings.ToValidUTF8(text, ""))), " ")
}

// visible maps white space and control characters to a space and drops what is
// neither seen nor space: direction overrides, zero-width characters, tags,
// variation selectors, private use. The two joiners stay, because Persian and
// Indic scripts are spelled with them.
func visible(r rune) rune {
	const nonJoiner, joiner = '\u200c', '\u200d'
	switch {
	case ' ' <= r && r <= '~': // most of all text
		return r
	case unicode.IsSpace(r) || unicode.IsControl(r):
		return ' '
	case r == nonJoiner || r == joiner:
		return r
	case !unicode.IsGraphic(r) || unicode.Is(unicode.Variation_Selector, r):
		return -1
	}
	return r
}

// cut shortens text to at most n characters and says whether that was all of it.
func cut(text string, n int) (string, bool) {
	count := 0
	for i := range text {
		if count == n {
			return text[:i], false
		}
		count++
	}
	return text, true
}
