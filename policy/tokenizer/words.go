package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// wordRule is a pre-tokeniser: the length in bytes of the first word of a text
// that is not empty, at least 1. Words cover the text without gaps. Bytes that
// are not UTF-8 count as symbols.
type wordRule func(text string) int

// The published patterns, as they are written in tokenizer.json. Go's regexp
// has no look-ahead and would be slow, so each has a scanner here.
const (
	gpt2Pattern   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// wordRuleFor finds the scanner of a pattern.
func wordRuleFor(pattern string) (wordRule, bool) {
	switch pattern {
	case gpt2Pattern:
		return gpt2Word, true
	case qwen2Pattern:
		return func(text string) int { return qwenWord(text, 1) }, true
	case llama3Pattern:
		return func(text string) int { return qwenWord(text, 3) }, true
	}
	return nil, false
}

// class is what the patterns tell apart.
type class uint8

const (
	symbol class = iota // none of the others
	letter              // \p{L}
	number              // \p{N}
	space               // \s
)

// classAt classifies the first character of a text and gives its length; the
// length is 0 at the end.
func classAt(text string) (class, int) {
	if text == "" {
		return symbol, 0
	}
	if c := text[0]; c < utf8.RuneSelf {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			return letter, 1
		case '0' <= c && c <= '9':
			return number, 1
		case c == ' ' || '\t' <= c && c <= '\r':
			return space, 1
		}
		return symbol, 1
	}
	char, size := utf8.DecodeRuneInString(text)
	switch {
	case unicode.IsLetter(char):
		return letter, size
	case unicode.IsNumber(char):
		return number, size
	case unicode.IsSpace(char):
		return space, size
	}
	return symbol, size
}

// run is the end of the characters of one class that begin at from.
func run(text string, from int, want class) int {
	for {
		c, size := classAt(text[from:])
		if size == 0 || c != want {
			return from
		}
		from += size
	}
}

// gpt2Word follows gpt2Pattern.
func gpt2Word(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	first, size := classAt(text)
	if text[0] == ' ' {
		if c, n := classAt(text[1:]); n > 0 && c != space {
			return run(text, 1+n, c)
		}
	}
	if first == space {
		return spaces(text, run(text, size, space))
	}
	return run(text, size, first)
}

// digitWord cuts out every digit and follows gpt2Pattern between them.
func digitWord(text string) int {
	first, size := classAt(text)
	switch first {
	case number:
		return size
	case space:
		end := run(text, size, space)
		if next, _ := classAt(text[end:]); next == number {
			return end
		}
	}
	return gpt2Word(text)
}

// qwenWord follows qwen2Pattern (one digit a word) and llama3Pattern (three).
func qwenWord(text string, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	first, size := classAt(text)
	switch first {
	case letter:
		return run(text, size, letter)
	case number:
		end := size
		for range digits - 1 {
			c, n := classAt(text[end:])
			if n == 0 || c != number {
				break
			}
			end += n
		}
		return end
	}
	second, n := classAt(text[size:])
	if n > 0 && second == letter && text[0] != '\r' && text[0] != '\n' {
		return run(text, size+n, letter)
	}
	if first == symbol || text[0] == ' ' && n > 0 && second == symbol {
		end := run(text, size, symbol)
		for end < len(text) && (text[end] == '\r' || text[end] == '\n') {
			end++
		}
		return end
	}
	end := run(text, size, space)
	for i := end; i > 0; i-- {
		if text[i-1] == '\r' || text[i-1] == '\n' {
			return i
		}
	}
	return spaces(text, end)
}

// spaces shortens a run of white space that ends at end: before a word its last
// character is left to the word, unless it is the only one.
func spaces(text string, end int) int {
	if end == len(text) {
		return end
	}
	_, last := utf8.DecodeLastRuneInString(text[:end])
	if last == end {
		return end
	}
	return end - last
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of
// a text, 0 if there is none. Folding ignores case; U+017F folds to s.
func contraction(text string, fold bool) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	if fold && len(text) > 2 && text[1:3] == "ſ" {
		return 3
	}
	lower := func(i int) byte {
		if c := text[i]; fold && 'A' <= c && c <= 'Z' {
			return c | 0x20
		}
		return text[i]
	}
	switch lower(1) {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(text) < 3 {
		return 0
	}
	switch [2]byte{lower(1), lower(2)} {
	case [2]byte{'r', 'e'}, [2]byte{'v', 'e'}, [2]byte{'l', 'l'}:
		return 3
	}
	return 0
}
