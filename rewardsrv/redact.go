package rewardsrv

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/forager-rl/forager"
)

const (
	maxRationaleBytes = 300
	redacted          = "[answer]"
	withheld          = "withheld: it names an answer"
)

// redact makes a rationale fit to leave the server: one short line that names
// no accepted answer and no hop answer of the task. Labels are shown and stored
// in many places, and whatever reaches a policy's context must not carry
// answers.
func redact(rationale string, t forager.Task) string {
	r := oneLine(rationale)
	var secrets []string
	for _, s := range secretAnswers(t) {
		if s = oneLine(s); s != "" {
			secrets = append(secrets, s)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // "New York City" before "New York"
	for _, s := range secrets {
		r = replaceWord(r, s, redacted)
	}
	for _, s := range secrets { // other spellings: "U.S.A." for "USA"
		if w := words(s); strings.TrimSpace(w) != "" && strings.Contains(words(strings.ReplaceAll(r, redacted, ".")), w) {
			return withheld
		}
	}
	if len(r) > maxRationaleBytes {
		r = strings.ToValidUTF8(r[:maxRationaleBytes], "") + "…"
	}
	return r
}

func secretAnswers(t forager.Task) []string {
	secrets := slices.Clone(t.Answers)
	for _, hop := range t.Decomposition {
		secrets = append(secrets, hop.Answer)
	}
	return secrets
}

// replaceWord replaces every occurrence of word, in any case, that does not
// touch another letter or digit.
func replaceWord(s, word, with string) string {
	var b strings.Builder
	size := len(word)
	for i := 0; i < len(s); {
		if i+size <= len(s) && strings.EqualFold(s[i:i+size], word) && !touches(s, i, i+size) {
			b.WriteString(with)
			i += size
			continue
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		b.WriteString(s[i : i+n])
		i += n
	}
	return b.String()
}

// touches says whether s[start:end] has a letter or digit as its neighbour.
func touches(s string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:start])
	after, _ := utf8.DecodeRuneInString(s[end:])
	inWord := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }
	return inWord(before) || inWord(after)
}

// oneLine turns control characters and runs of white space into single spaces.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}
