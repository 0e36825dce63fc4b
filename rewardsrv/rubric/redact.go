package rubric

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
)

const (
	maxRationaleBytes = 300
	redacted          = "[answer]"
	withheld          = "withheld: it names an answer"
)

// Redacted is the verdict fit to leave the reward server: see Redact.
func (v Verdict) Redacted(t forager.Task) Verdict {
	v.Rationale = Redact(v.Rationale, t)
	details := make(map[string]string, len(v.Details))
	for name, detail := range v.Details {
		details[Redact(name, t)] = Redact(detail, t)
	}
	v.Details = details
	return v
}

// Redact gives a rationale as one short line that names no accepted answer and
// no hop answer of the task, in whatever case, accents and punctuation. Labels
// are shown and stored in many places, and whatever reaches a policy's context
// must not carry answers.
func Redact(rationale string, t forager.Task) string {
	line := oneLine(rationale)
	var found []span
	for _, keep := range []bool{true, false} {
		text := fold(line, keep)
		for _, secret := range secrets(t) {
			found = append(found, text.find(fold(oneLine(secret), keep))...)
		}
	}
	slices.SortFunc(found, func(a, b span) int { return a.start - b.start })
	var b strings.Builder
	end := 0
	for _, s := range found {
		if s.start >= end {
			b.WriteString(line[end:s.start])
			b.WriteString(redacted)
		}
		end = max(end, s.end)
	}
	b.WriteString(line[end:])
	rest := words(strings.ReplaceAll(b.String(), redacted, "."))
	for _, secret := range secrets(t) { // what counts as the same answer for the reward: "Lord of Rings"
		if w := words(secret); strings.TrimSpace(w) != "" && strings.Contains(rest, w) {
			return withheld
		}
	}
	return shorten(b.String(), maxRationaleBytes)
}

// words is normalised text between spaces, so that a substring is a run of
// whole words.
func words(s string) string { return " " + reward.Normalize(s) + " " }

// secrets are the answers of a task, and those without their article.
func secrets(t forager.Task) []string {
	all := slices.Clone(t.Answers)
	for _, hop := range t.Decomposition {
		all = append(all, hop.Answer)
	}
	for _, s := range all {
		article, rest, ok := strings.Cut(strings.TrimSpace(s), " ")
		if ok && slices.Contains([]string{"a", "an", "the"}, strings.ToLower(article)) {
			all = append(all, rest)
		}
	}
	return all
}

// span is a range of bytes.
type span struct{ start, end int }

// folded is a text as letters without case and accents (NFKD, Unicode Standard
// Annex 15), digits, symbols and single spaces, each with its place in the original.
type folded struct {
	runes []rune
	spans []span
}

// fold prepares a line for comparison. Punctuation separates words or, where
// keep is false, vanishes: "U.S.A." is then "usa".
func fold(line string, keep bool) folded {
	var f folded
	for start, r := range line {
		at := span{start, start + len(string(r))}
		for _, r := range norm.NFKD.String(strings.ToLower(string(r))) {
			switch last := len(f.runes) - 1; {
			case unicode.Is(unicode.Mn, r):
				if last >= 0 {
					f.spans[last].end = at.end
				}
			case r == ' ' || keep && punctuation(r):
				if last < 0 || f.runes[last] != ' ' {
					f.runes, f.spans = append(f.runes, ' '), append(f.spans, at)
				}
			case !punctuation(r):
				f.runes, f.spans = append(f.runes, r), append(f.spans, at)
			}
		}
	}
	return f
}

// punctuation is what spellings of one answer differ in. Symbols outside ASCII,
// such as €, are not.
func punctuation(r rune) bool {
	return unicode.IsPunct(r) || r < unicode.MaxASCII && unicode.IsSymbol(r) || !unicode.IsGraphic(r)
}

// find gives the places where the words of secret stand.
func (f folded) find(secret folded) []span {
	want := []rune(strings.TrimSpace(string(secret.runes)))
	if len(want) == 0 {
		return nil
	}
	var found []span
	for i := 0; i+len(want) <= len(f.runes); i++ {
		end := i + len(want)
		if slices.Equal(f.runes[i:end], want) && !f.joined(i) && !f.joined(end) {
			found = append(found, span{f.spans[i].start, f.spans[end-1].end})
		}
	}
	return found
}

// joined says that the runes on both sides of i belong to one word.
func (f folded) joined(i int) bool {
	return i > 0 && i < len(f.runes) && letter(f.runes[i-1]) && letter(f.runes[i])
}

// letter says whether r is part of a word that its neighbours can prolong. In
// scripts without spaces, and in Korean with its suffixes, an answer is named
// wherever its characters stand.
func letter(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsNumber(r)) && !unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana,
		unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// shorten cuts a line at a space so that it has at most n bytes and a "…": a cut
// inside a word could leave an answer that the word only begins with.
func shorten(line string, n int) string {
	if len(line) <= n {
		return line
	}
	line = strings.ToValidUTF8(line[:n+1], "")
	if i := strings.LastIndexByte(line, ' '); i > 0 {
		line = line[:i]
	} else {
		line = strings.ToValidUTF8(line[:min(n, len(line))], "")
	}
	return line + "…"
}
