package chat

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/forager-rl/forager/policy"
)

// The private planes of Unicode, without the two codes at the end of each that
// are no characters.
const (
	firstPrivate  = 0xF0000
	lastPrivate   = 0x10FFFD
	firstOfSecond = 0x100000
)

// disguise lends private characters to the characters of plain text.
type disguise struct {
	taken map[rune]bool
	lent  map[string]rune // by character; a byte that is not UTF-8 stands for itself
	plain map[rune]string
	next  rune
}

// newDisguise lends no character that is in the template.
func newDisguise(template string) *disguise {
	d := &disguise{taken: map[rune]bool{}, lent: map[string]rune{}, plain: map[rune]string{}, next: firstPrivate}
	d.reserve(template)
	return d
}

// reserve keeps what is in a text from being lent.
func (d *disguise) reserve(text string) {
	for _, char := range text {
		if char >= firstPrivate {
			d.taken[char] = true
		}
	}
}

// put disguises plain text. What templates trim, split at or escape stays.
func (d *disguise) put(text string) (string, error) {
	out := make([]byte, 0, 4*len(text))
	for len(text) > 0 {
		char, size := utf8.DecodeRuneInString(text)
		if unicode.IsSpace(char) || char < ' ' || char == '"' || char == '\\' {
			out = utf8.AppendRune(out, char)
			text = text[size:]
			continue
		}
		lent, ok := d.lent[text[:size]]
		if !ok {
			for d.taken[d.next] || d.next == firstOfSecond-2 || d.next == firstOfSecond-1 {
				d.next++
			}
			if d.next > lastPrivate {
				return "", fmt.Errorf("a chat has more than %d different characters", len(d.lent))
			}
			lent = d.next
			d.next++
			d.lent[text[:size]], d.plain[lent] = lent, text[:size]
		}
		out = utf8.AppendRune(out, lent)
		text = text[size:]
	}
	return string(out), nil
}

// take finds what was disguised in a rendered text.
func (d *disguise) take(text string) []policy.Part {
	var parts []policy.Part
	var run []byte
	plain := false
	flush := func() {
		if len(run) > 0 {
			parts = append(parts, policy.Part{Text: string(run), Plain: plain})
		}
		run = run[:0]
	}
	for len(text) > 0 {
		char, size := utf8.DecodeRuneInString(text)
		original, disguised := d.plain[char]
		if disguised != plain {
			flush()
			plain = disguised
		}
		if disguised {
			run = append(run, original...)
		} else {
			run = append(run, text[:size]...)
		}
		text = text[size:]
	}
	flush()
	return parts
}
