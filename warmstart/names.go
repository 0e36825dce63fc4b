package warmstart

import (
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/search/worldfacts"
)

// Shares of the names that a demonstration invents.
const (
	pieceNames    = 0.5  // made of random pieces of the vocabulary
	accentedWords = 0.08 // words with an accent, of those
)

// namer invents names for demonstrations. Names that sound real teach what
// usually follows what; to copy whatever stands there a policy must also have
// met any token after any other, so that part of the names is random pieces of
// the vocabulary.
type namer struct {
	names  *worldfacts.Names
	pieces []string // tokens of letters alone, lower case
}

func newNamer(names *worldfacts.Names, tok *tokenizer.Tokenizer) *namer {
	n := &namer{names: names}
	for id := range int32(tok.VocabSize()) {
		piece := strings.TrimPrefix(string(tok.TokenBytes(id)), " ")
		if piece != "" && utf8.ValidString(piece) && strings.IndexFunc(piece, func(r rune) bool { return !unicode.IsLetter(r) }) < 0 {
			n.pieces = append(n.pieces, strings.ToLower(piece))
		}
	}
	return n
}

// using returns a name function for worldfacts.Invent.
func (n *namer) using(random *rand.Rand) func(kind string) string {
	plausible := n.names.Using(random)
	return func(kind string) string {
		if random.Float64() >= pieceNames {
			return plausible(kind)
		}
		for {
			name := n.phrase(random)
			if kind == worldfacts.KindCurrency {
				name = n.word(random) + " " + strings.ToLower(n.word(random))
			}
			if n.names.Allowed(name) {
				return name
			}
		}
	}
}

// phrase makes a name of one to four words, some with initials.
func (n *namer) phrase(random *rand.Rand) string {
	switch draw := random.IntN(20); {
	case draw < 9:
		return n.word(random)
	case draw < 11:
		return initials(random) + " " + n.word(random)
	case draw < 15:
		return n.word(random) + " " + n.word(random)
	case draw < 16:
		return n.word(random) + " " + n.word(random) + " " + n.word(random)
	}
	joints := []string{" and ", " of the ", " and the ", " of ", "-", " de ", " da ", " Republic of the "}
	name := n.word(random) + joints[random.IntN(len(joints))] + n.word(random)
	if random.IntN(3) == 0 {
		name = n.word(random) + " " + name
	}
	return name
}

// initials are two or three capital letters, as in the name of a republic that
// is too long to write.
func initials(random *rand.Rand) string {
	letters := make([]byte, 2+random.IntN(2))
	for i := range letters {
		letters[i] = byte('A' + random.IntN(26))
	}
	return string(letters)
}

// word strings one to three pieces together.
func (n *namer) word(random *rand.Rand) string {
	var b strings.Builder
	for range 1 + random.IntN(3) {
		b.WriteString(n.pieces[random.IntN(len(n.pieces))])
	}
	letters := []rune(b.String())
	if random.Float64() < accentedWords {
		accents := []rune("áâãäåçèéêëíîïñóôõöøúüāī")
		letters[random.IntN(len(letters))] = accents[random.IntN(len(accents))]
	}
	if len(letters) == 1 {
		letters = append(letters, []rune(n.pieces[random.IntN(len(n.pieces))])...)
	}
	letters[0] = unicode.ToUpper(letters[0])
	return string(letters)
}
