package reward

import (
	"strings"
	"unicode"
)

// Normalize prepares an answer for comparison as SQuAD's evaluation script
// does, in this order: lower case; drop ASCII punctuation; replace the words
// a, an and the by a space; collapse white space and trim. Letters outside ASCII keep
// their accents.
func Normalize(s string) string {
	return strings.Join(tokens(s), " ")
}

// tokens are the words of the normalised string.
func tokens(s string) []string {
	s = strings.Map(func(r rune) rune {
		if isASCIIPunct(r) {
			return -1
		}
		return r
	}, strings.ToLower(s))
	return strings.Fields(dropArticles(s))
}

func isASCIIPunct(r rune) bool {
	return r < unicode.MaxASCII && (unicode.IsPunct(r) || unicode.IsSymbol(r))
}

// dropArticles replaces each article by a space. A word is a maximal run of
// letters and numbers, so the article of "the–end" goes and "another" stays.
func dropArticles(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	start := -1 // start of the word being read
	flush := func(end int) {
		if start < 0 {
			return
		}
		switch word := s[start:end]; word {
		case "a", "an", "the":
			b.WriteByte(' ')
		default:
			b.WriteString(word)
		}
		start = -1
	}
	for i, r := range s {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			if start < 0 {
				start = i
			}
			continue
		}
		flush(i)
		b.WriteRune(r)
	}
	flush(len(s))
	return b.String()
}
