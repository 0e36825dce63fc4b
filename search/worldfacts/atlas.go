package worldfacts

import (
	"slices"
	"strings"
	"unicode"

	"github.com/forager-rl/forager"
)

// The kinds of entities. A kind is the type word of a title, "Tirana (city)",
// and of a query, "city Tirana". Continents are named in passages only.
const (
	KindCountry   = "country"
	KindCity      = "city"
	KindCurrency  = "currency"
	KindLanguage  = "language"
	KindRegion    = "region"
	KindDomain    = "domain"
	KindContinent = "continent"
)

// maxListed is the number of names that a passage lists at most.
const maxListed = 6

// entity is one thing that has a passage of its own.
type entity struct {
	kind    string
	name    string
	members []int    // countries that have it, sorted; the country itself for a country
	answers []string // the name and its other spellings
	passage forager.Passage

	plainAnswers []string // answers and the passage's title and text, see plain
	plainPassage string
}

// atlas is a world with its entities looked up and its passages written.
type atlas struct {
	world    *World
	entities []entity       // the countries come first, in the order of the world
	byName   map[string]int // index in entities of kind + " " + name
	nearest  []int          // of each country, -1 when two are equally near
}

func newAtlas(w *World) *atlas {
	a := &atlas{world: w, byName: make(map[string]int), nearest: make([]int, len(w.Countries))}
	for i := range w.Countries {
		a.add(KindCountry, w.Countries[i].Name, i)
	}
	for i := range w.Countries {
		a.nearest[i] = -1
		if j, ok := w.nearest(i); ok {
			a.nearest[i] = j
		}
		c := &w.Countries[i]
		a.add(KindCity, c.Capital, i)
		for _, name := range c.Currencies {
			a.add(KindCurrency, name, i)
		}
		for _, name := range c.Languages {
			a.add(KindLanguage, name, i)
		}
		a.add(KindRegion, c.Region, i)
		if c.Domain != "" {
			a.add(KindDomain, c.Domain, i)
		}
	}
	for i := range a.entities {
		e := &a.entities[i]
		e.answers = a.spellings(e)
		e.passage = a.write(e)
		for _, answer := range e.answers {
			e.plainAnswers = append(e.plainAnswers, plain(answer))
		}
		e.plainPassage = plain(e.passage.Title + " " + e.passage.Text)
	}
	return a
}

func (a *atlas) add(kind, name string, country int) {
	key := kind + " " + name
	i, ok := a.byName[key]
	if !ok {
		i = len(a.entities)
		a.byName[key] = i
		a.entities = append(a.entities, entity{kind: kind, name: name})
	}
	if e := &a.entities[i]; !slices.Contains(e.members, country) {
		e.members = append(e.members, country)
	}
}

// country is the country that the entity is, for entities of that kind.
func (a *atlas) country(e *entity) *Country { return &a.world.Countries[e.members[0]] }

// spellings is the entity's name with its aliases and its unaccented forms.
func (a *atlas) spellings(e *entity) []string {
	all := []string{e.name}
	if e.kind == KindCountry {
		all = append(all, a.country(e).Aliases...)
	}
	for _, name := range all[:len(all):len(all)] {
		if folded := accents.Replace(name); folded != name {
			all = append(all, folded)
		}
	}
	return all
}

// accents writes the accented letters of the real names without accents.
var accents = strings.NewReplacer(
	"á", "a", "à", "a", "ã", "a", "ā", "a", "å", "a", "Å", "A", "é", "e", "è", "e", "ē", "e", "í", "i", "ó", "o", "ò", "o", "ô", "o",
	"ú", "u", "ç", "c", "ñ", "n", "ă", "a", "ș", "s", "ț", "t", "ʻ", "'",
)

// plain writes a text as lower-case words separated, and surrounded, by single
// spaces, so that strings.Contains on two of them compares whole words.
func plain(text string) string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return " " + strings.Join(words, " ") + " "
}

// mentionedIn reports whether the entity's name occurs in a text in plain form.
func (e *entity) mentionedIn(text string) bool {
	return slices.ContainsFunc(e.plainAnswers, func(name string) bool { return strings.Contains(text, name) })
}
