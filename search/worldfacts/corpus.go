package worldfacts

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/forager-rl/forager"
)

// Corpus writes one short passage for every country, capital, currency,
// language, region and internet domain, titled "Albania (country)", "Tirana
// (city)" and so on. Ids such as "city-tirana" are unique.
func (w *World) Corpus() []forager.Passage {
	a := newAtlas(w)
	passages := make([]forager.Passage, len(a.entities))
	for i := range a.entities {
		passages[i] = a.entities[i].passage
	}
	return passages
}

// Lead is a search that the text of a passage suggests.
type Lead struct {
	Query   string // that finds its passage
	Passage string // id of that passage
}

// Leads gives, by passage id, a search for each entity that the passage names,
// itself left out: what a reader could ask next. Domains, which only their own
// passages name and which look like common words, are left out.
func (w *World) Leads() map[string][]Lead {
	a := newAtlas(w)
	leads := make(map[string][]Lead, len(a.entities))
	for i := range a.entities {
		read := &a.entities[i]
		for j := range a.entities {
			if named := &a.entities[j]; i != j && named.kind != KindDomain && named.mentionedIn(read.plainPassage) {
				leads[read.passage.ID] = append(leads[read.passage.ID], Lead{Query: query(named), Passage: named.passage.ID})
			}
		}
	}
	return leads
}

// write writes the passage of an entity. Each kind has two wordings with the
// facts in the same order; a hash of the id picks one. The type word of another
// kind is avoided where names meet, so that "country Tonga" finds the country and
// not the language.
func (a *atlas) write(e *entity) forager.Passage {
	p := forager.Passage{ID: e.kind + "-" + slug(e.name), Title: capitalise(e.name) + " (" + e.kind + ")"}
	variant := int(hash(p.ID) % 2)
	switch e.kind {
	case KindCountry:
		p.Text = a.writeCountry(e, variant)
	case KindCity:
		p.Text = a.writeCity(e, variant)
	case KindCurrency:
		p.Text = a.writeCurrency(e, variant)
	case KindLanguage:
		p.Text = a.writeLanguage(e, variant)
	case KindRegion:
		p.Text = a.writeRegion(e, variant)
	case KindDomain:
		owner := the(a.world.Countries[e.members[0]].Name)
		p.Text = []string{
			"The internet domain %[1]s belongs to %[2]s. Many web addresses in %[2]s end with %[1]s.",
			"The internet domain %[1]s is that of %[2]s. Web sites from %[2]s often end with %[1]s.",
		}[variant]
		p.Text = fmt.Sprintf(p.Text, e.name, owner)
	}
	return p
}

func (a *atlas) writeCountry(e *entity, variant int) string {
	c := a.country(e)
	currency, language := listed(each("the ", c.Currencies)), listed(c.Languages)
	var b strings.Builder
	if variant == 0 {
		fmt.Fprintf(&b, "%s is a country in %s. The capital of %s is %s.", capitalise(the(c.Name)), the(c.Region), the(c.Name), c.Capital)
		fmt.Fprintf(&b, " The %s %s and the %s %s.",
			number(len(c.Currencies), "currency is", "currencies are"), currency,
			number(len(c.Languages), "language is", "languages are"), language)
	} else {
		fmt.Fprintf(&b, "%s lies in %s. The capital of %s is %s.", capitalise(the(c.Name)), the(c.Region), the(c.Name), c.Capital)
		fmt.Fprintf(&b, " People pay with %s and speak %s.", currency, language)
	}
	var facts []string
	if largest, ok := a.world.largest(c.Neighbours, 1); ok {
		facts = append(facts, "the largest neighbour is "+the(a.world.Countries[largest].Name))
	} else if len(c.Neighbours) == 0 {
		facts = append(facts, "there is no neighbour by land")
	}
	if nearest := a.nearest[e.members[0]]; nearest >= 0 {
		facts = append(facts, "the nearest country is "+the(a.world.Countries[nearest].Name))
	}
	if len(facts) > 0 {
		fmt.Fprintf(&b, " %s.", capitalise(strings.Join(facts, " and ")))
	}
	return b.String()
}

func (a *atlas) writeCity(e *entity, variant int) string {
	names := each("", a.names(e.members))
	region := the(a.world.Countries[e.members[0]].Region)
	if len(e.members) > 1 { // two capitals of one name, in different places
		return fmt.Sprintf("%s is the name of %d cities. They are the capitals of %s.", e.name, len(e.members), listed(names))
	}
	return fmt.Sprintf([]string{
		"%s is a city in %s. It serves as the capital of %s.",
		"%s lies in %s. This city is the capital of %s.",
	}[variant], e.name, region, names[0])
}

func (a *atlas) writeCurrency(e *entity, variant int) string {
	users := each("", a.names(e.members))
	name := capitalise("the " + e.name)
	if len(users) == 1 {
		return fmt.Sprintf([]string{
			"%s is the currency of %s. No other nation pays with it.",
			"%s is money in one nation only. It is used in %s.",
		}[variant], name, users[0])
	}
	return fmt.Sprintf([]string{
		"%s is a currency shared by %d nations. It is used in %s.",
		"%s is money in %d nations. The nations that use it are %s.",
	}[variant], name, len(users), listed(users))
}

func (a *atlas) writeLanguage(e *entity, variant int) string {
	speakers := each("", a.names(e.members))
	if len(speakers) == 1 {
		return fmt.Sprintf([]string{
			"%s is a language of one nation. It is spoken in %s.",
			"%s is spoken in one nation only. That nation is %s.",
		}[variant], e.name, speakers[0])
	}
	return fmt.Sprintf([]string{
		"%s is a language of %d nations. It is spoken in %s.",
		"%s is spoken in %d nations. They are %s.",
	}[variant], e.name, len(speakers), listed(speakers))
}

func (a *atlas) writeRegion(e *entity, variant int) string {
	countries := each("", a.names(e.members))
	continent := a.world.Countries[e.members[0]].Continent
	var b strings.Builder
	fmt.Fprintf(&b, []string{"%s is a region of %s.", "%s is a part of %s."}[variant], capitalise(the(e.name)), the(continent))
	largest, okLargest := a.world.largest(e.members, 1)
	smallest, okSmallest := a.world.largest(e.members, -1)
	if okLargest && okSmallest {
		fmt.Fprintf(&b, " The largest country there is %s and the smallest is %s.",
			the(a.world.Countries[largest].Name), the(a.world.Countries[smallest].Name))
	}
	if len(countries) > maxListed {
		fmt.Fprintf(&b, " Among its %d countries are %s.", len(countries), listed(countries))
	} else {
		fmt.Fprintf(&b, " Its %d countries are %s.", len(countries), listed(countries))
	}
	return b.String()
}

// names gives the countries' names in alphabetical order.
func (a *atlas) names(countries []int) []string {
	names := make([]string, len(countries))
	for i, c := range countries {
		names[i] = a.world.Countries[c].Name
	}
	slices.Sort(names)
	return names
}

// each puts a prefix, or where it is empty the article that the name needs,
// before every name.
func each(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		if prefix == "" {
			out[i] = the(name)
		} else {
			out[i] = prefix + name
		}
	}
	return out
}

// listed joins names as "A, B and C"; of more than maxListed it names the
// first few and says that there are others.
func listed(names []string) string {
	if len(names) > maxListed {
		return strings.Join(names[:4], ", ") + " and others"
	}
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// the puts the article before names that carry one: plurals, states that are
// called by their form, and a few others.
func the(name string) string {
	words := strings.Fields(name)
	if len(words) == 0 {
		return name
	}
	if len(words) > 1 && (words[0] == "Republic" || words[0] == "Isle") {
		return "the " + name
	}
	switch words[len(words)-1] {
	case "Islands", "Republic", "States", "Kingdom", "Emirates", "Territory", "Netherlands",
		"Philippines", "Bahamas", "Maldives", "Comoros", "Gambia", "Caribbean", "Americas", "Grenadines":
		if words[0] != "Saint" {
			return "the " + name
		}
	}
	return name
}

// number picks the form for one or for several.
func number(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}

func capitalise(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + text[n:]
}

// slug writes a name in lower case with hyphens between its words.
func slug(name string) string {
	return strings.ReplaceAll(strings.TrimSpace(plain(name)), " ", "-")
}

// hash is 64-bit FNV-1a.
func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}
