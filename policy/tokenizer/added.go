package tokenizer

import (
	"slices"
	"strings"
)

// addedToken is a token that is cut out of the text before anything else, in
// the fields of tokenizer.json.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// matcher finds added tokens, by first byte and then longest first.
type matcher struct {
	byFirst [256][]match
	empty   bool
}

type match struct {
	content string
	id      int32
}

func newMatcher(matches []match) *matcher {
	m := &matcher{empty: len(matches) == 0}
	for _, x := range matches {
		m.byFirst[x.content[0]] = append(m.byFirst[x.content[0]], x)
	}
	for _, list := range m.byFirst {
		slices.SortStableFunc(list, func(a, b match) int { return len(b.content) - len(a.content) })
	}
	return m
}

// find gives the range and id of the leftmost token, the longest if several
// begin there. Without one, start and end are the length of the text.
func (m *matcher) find(text string) (start, end int, id int32) {
	if m.empty {
		return len(text), len(text), 0
	}
	for i := range len(text) {
		for _, x := range m.byFirst[text[i]] {
			if strings.HasPrefix(text[i:], x.content) {
				return i, i + len(x.content), x.id
			}
		}
	}
	return len(text), len(text), 0
}
