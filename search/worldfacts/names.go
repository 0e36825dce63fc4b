package worldfacts

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
)

// Names invents names that look like real ones. Half of the words come from
// Markov chains over the letters of real names of the train split, half from
// random syllables or letters. No name is that of a real entity, and no word of
// four letters or more occurs only in names of the dev and test splits.
type Names struct {
	places    *markov         // words of countries and cities
	peoples   *markov         // words of languages, and what currencies are called after
	units     []string        // what currencies are counted in: franc, lek
	forbidden map[string]bool // names and words in plain form
}

// NewNames learns from the train split (see SplitOf) of the real world.
func NewNames(real *World) *Names {
	m := newMaker(real, Options{Split: SplitOf})
	n := &Names{places: newMarkov(), peoples: newMarkov(), forbidden: make(map[string]bool)}
	known := make(map[string]bool) // words of train names
	for i := range m.entities {
		e := &m.entities[i]
		if m.owner[i] != forager.Train {
			continue
		}
		words := strings.Fields(e.name)
		for _, word := range strings.Fields(plain(e.name)) {
			known[word] = true
		}
		switch e.kind {
		case KindCountry, KindCity:
			n.places.learn(words...)
		case KindLanguage:
			n.peoples.learn(words...)
		case KindCurrency:
			last := len(words) - 1
			n.peoples.learn(words[:last]...)
			if last > 0 && !slices.Contains(n.units, words[last]) {
				n.units = append(n.units, words[last])
			}
		}
	}
	for i := range m.entities {
		for _, name := range append(m.entities[i].plainAnswers, plain(m.entities[i].name)) {
			n.forbidden[name] = true
		}
		for _, word := range strings.Fields(plain(m.entities[i].name)) {
			if len([]rune(word)) > 3 && !known[word] {
				n.forbidden[word] = true
			}
		}
	}
	return n
}

// Using returns a name function for Invent that draws from rng. It knows the
// Kind constants; for another kind it invents the name of a place.
func (n *Names) Using(rng *rand.Rand) func(kind string) string {
	return func(kind string) string {
		for {
			if name := n.compose(rng, kind); n.Allowed(name) {
				return name
			}
		}
	}
}

// Allowed reports whether a name may be shown in a demonstration. Most random
// letters may, so that asking again soon ends.
func (n *Names) Allowed(name string) bool {
	text := plain(name)
	return !n.forbidden[text] && !slices.ContainsFunc(strings.Fields(text), func(word string) bool { return n.forbidden[word] })
}

// compose makes a name of one or more words in the proportions of real names.
func (n *Names) compose(rng *rand.Rand, kind string) string {
	pick := func(options ...string) string { return options[rng.IntN(len(options))] }
	place := func() string { return n.word(rng, n.places) }
	people := func() string {
		if rng.IntN(2) == 0 {
			return n.peoples.word(rng)
		}
		return invented(rng, 1+rng.IntN(2)) + pick("an", "ian", "ese", "ish", "i", "")
	}
	dice := rng.IntN(100)
	switch kind {
	case KindCountry:
		switch {
		case dice < 72:
			return place()
		case dice < 78:
			return place() + " Islands"
		case dice < 84:
			return pick("South", "North", "New", "East", "West") + " " + place()
		case dice < 88:
			return "Saint " + place()
		case dice < 93:
			return place() + " and " + place()
		case dice < 95:
			return place() + " Republic"
		}
		return place() + " " + place()
	case KindCity:
		switch {
		case dice < 78:
			return place()
		case dice < 83:
			return pick("Port", "San", "Saint", "New", "Fort") + " " + place()
		case dice < 87:
			return place() + " " + pick("City", "Town")
		case dice < 92:
			return place() + "-" + place()
		}
		return place() + " " + place()
	case KindCurrency:
		unit := strings.ToLower(invented(rng, 1+rng.IntN(2)))
		if len(n.units) > 0 && rng.IntN(2) == 0 {
			unit = pick(n.units...)
		}
		if dice < 8 {
			return pick("North", "South", "East", "West", "New") + " " + people() + " " + unit
		}
		return people() + " " + unit
	case KindLanguage:
		switch {
		case dice < 88:
			return people()
		case dice < 93:
			return pick("Northern", "Southern", "Swiss", "Old") + " " + people()
		}
		return people() + " " + pick("Creole", "Sign Language", people())
	}
	return place()
}

// word draws half of the words from a Markov chain, half from nowhere.
func (n *Names) word(rng *rand.Rand, m *markov) string {
	if rng.IntN(2) == 0 {
		return m.word(rng)
	}
	return invented(rng, 2+rng.IntN(2))
}

// invented strings syllables together, or one time in five four to seven
// random letters.
func invented(rng *rand.Rand, syllables int) string {
	var b strings.Builder
	if rng.IntN(5) == 0 {
		for range 4 + rng.IntN(4) {
			b.WriteByte(byte('a' + rng.IntN(26)))
		}
		return capitalise(b.String())
	}
	pick := func(options []string) string { return options[rng.IntN(len(options))] }
	starts := strings.Fields("b br c ch d dr f fl g gr h j k kh l m n p pr qu r s sh st t th tr v w y z")
	middles := strings.Fields("a e i o u a e i o u aa ai ea ei ia ie oa ou ue")
	ends := strings.Fields("l m n r s t k d ng nd rt st x")
	for range syllables {
		if b.Len() > 0 || rng.IntN(4) > 0 {
			b.WriteString(pick(starts))
		}
		b.WriteString(pick(middles))
		if rng.IntN(3) == 0 {
			b.WriteString(pick(ends))
		}
	}
	for b.Len() < 3 {
		b.WriteString(pick(ends))
	}
	return capitalise(b.String())
}

// markov draws words letter by letter, each given the two or three before it.
type markov struct {
	next  map[string][]rune // by context; 0 ends a word
	known map[string]bool   // the words it learned from, in lower case
}

func newMarkov() *markov { return &markov{next: make(map[string][]rune), known: make(map[string]bool)} }

// learn takes in words. The start of a word is written ^.
func (m *markov) learn(words ...string) {
	for _, word := range words {
		word = strings.ToLower(word)
		m.known[word] = true
		letters := append([]rune("^^^"), []rune(word)...)
		for i := 3; i <= len(letters); i++ {
			next := rune(0)
			if i < len(letters) {
				next = letters[i]
			}
			for order := 2; order <= 3; order++ {
				context := string(letters[i-order : i])
				m.next[context] = append(m.next[context], next)
			}
		}
	}
}

// word draws a new word of 3 to 11 letters; where the chain knows too little
// for one, it falls back on syllables.
func (m *markov) word(rng *rand.Rand) string {
	for range 50 {
		order := 2 + rng.IntN(2)
		letters := []rune("^^^")
		for len(letters) < 3+12 {
			options := m.next[string(letters[len(letters)-order:])]
			if len(options) == 0 {
				break
			}
			next := options[rng.IntN(len(options))]
			if next == 0 {
				break
			}
			letters = append(letters, next)
		}
		word := string(letters[3:])
		if n := len(letters) - 3; n >= 3 && n <= 11 && !m.known[word] {
			return capitalise(word)
		}
	}
	return invented(rng, 2)
}
