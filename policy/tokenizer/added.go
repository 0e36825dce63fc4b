package tokenizer

import (
	"slices"
	"sort"
	"strings"

	"github.com/forager-rl/forager/policy"
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

// ranges are bytes of a text in which no added token is recognised, in order
// and apart.
type ranges []struct{ start, end int }

// joinParts gives the whole text and where it is plain.
func joinParts(parts []policy.Part) (string, ranges) {
	var text strings.Builder
	var plain ranges
	for _, p := range parts {
		start := text.Len()
		text.WriteString(p.Text)
		switch last := len(plain) - 1; {
		case !p.Plain || p.Text == "":
		case last >= 0 && plain[last].end == start:
			plain[last].end = text.Len()
		default:
			plain = append(plain, struct{ start, end int }{start, text.Len()})
		}
	}
	return text.String(), plain
}

// touch reports whether a byte from start to end is in a range.
func (r ranges) touch(start, end int) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].end > start })
	return i < len(r) && r[i].start < end
}

// within gives what lies between start and end, counted from start.
func (r ranges) within(start, end int) ranges {
	var out ranges
	for _, x := range r {
		if from, to := max(x.start, start), min(x.end, end); from < to {
			out = append(out, struct{ start, end int }{from - start, to - start})
		}
	}
	return out
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

// find gives the range and id of the leftmost token at or after from that has no
// plain byte, the longest if several begin there. Without one, start and end are
// the length of the text.
func (m *matcher) find(text string, from int, plain ranges) (start, end int, id int32) {
	if m.empty {
		return len(text), len(text), 0
	}
	for i := from; i < len(text); i++ {
		for _, x := range m.byFirst[text[i]] {
			if strings.HasPrefix(text[i:], x.content) && !plain.touch(i, i+len(x.content)) {
				return i, i + len(x.content), x.id
			}
		}
	}
	return len(text), len(text), 0
}
