package warmstart

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/forager-rl/forager/search/worldfacts"
)

// Invented worlds are to vary more than the real one, so that no part of it is
// a surprise: these are the shares of countries with a long list of languages,
// with several currencies, and the most languages of a list.
const (
	manyLanguages  = 0.35
	manyCurrencies = 0.12
	mostLanguages  = 6
)

// Shares of the names that resemble another name of their country. In the real
// world Algeria has Algiers, the Algerian dinar and, elsewhere, a Nigeria; a
// policy that has never met look-alikes copies the wrong one.
const (
	kindredCountries  = 0.15
	kindredCapitals   = 0.25
	kindredCurrencies = 0.65
	kindredLanguages  = 0.5
)

// diversify makes an invented world harder to read: longer lists, and names of
// one country that look alike. Renaming is consistent, and names stay unique.
func diversify(random *rand.Rand, w *worldfacts.World, names *namer) {
	fresh := names.using(random)
	for i := range w.Countries {
		c := &w.Countries[i]
		if random.Float64() < manyLanguages {
			for range 1 + random.IntN(mostLanguages-1) {
				language := fresh(worldfacts.KindLanguage)
				if other := w.Countries[random.IntN(len(w.Countries))].Languages; random.IntN(3) == 0 {
					language = other[random.IntN(len(other))]
				}
				if len(c.Languages) < mostLanguages && !slices.Contains(c.Languages, language) {
					c.Languages = append(c.Languages, language)
				}
			}
			slices.Sort(c.Languages)
		}
		if random.Float64() < manyCurrencies {
			if other := w.Countries[random.IntN(len(w.Countries))].Currencies[0]; !slices.Contains(c.Currencies, other) {
				c.Currencies = append(c.Currencies, other)
			}
		}
	}
	resemble(random, w, names.names.Allowed)
}

// resemble gives a part of the names another one of the same family.
func resemble(random *rand.Rand, w *worldfacts.World, allowed func(string) bool) {
	used := map[string]bool{}
	for _, c := range w.Countries {
		for _, name := range slices.Concat([]string{c.Name, c.Capital, c.Region, c.Continent}, c.Currencies, c.Languages) {
			used[strings.ToLower(name)] = true
		}
	}
	// take gives the new name if it is free, else the old one.
	take := func(old, name string) string {
		key := strings.ToLower(name)
		if used[key] || !allowed(name) {
			return old
		}
		used[key] = true
		return name
	}
	renamed := map[string]string{}
	share := func(old string, chance float64, name func() string) string {
		if _, seen := renamed[old]; !seen {
			renamed[old] = old
			if random.Float64() < chance {
				renamed[old] = take(old, name())
			}
		}
		return renamed[old]
	}
	for i := range w.Countries {
		c := &w.Countries[i]
		if i > 0 && random.Float64() < kindredCountries {
			c.Name = take(c.Name, kin(random, w.Countries[random.IntN(i)].Name))
		}
		if random.Float64() < kindredCapitals {
			name := kin(random, c.Name)
			if random.IntN(4) == 0 {
				name = c.Name + " City"
			}
			c.Capital = take(c.Capital, name)
		}
		for j, currency := range c.Currencies {
			c.Currencies[j] = share(currency, kindredCurrencies, func() string {
				return adjective(random, c.Name) + currency[strings.LastIndexByte(currency, ' '):]
			})
		}
		for j, language := range c.Languages {
			c.Languages[j] = share(language, kindredLanguages, func() string { return adjective(random, c.Name) })
		}
		slices.Sort(c.Languages)
	}
}

// stem is the first long word of a name without the vowels at its end.
func stem(name string) string {
	word := name
	for _, part := range strings.Fields(name) {
		if len(part) > 3 {
			word = part
			break
		}
	}
	if cut := strings.TrimRight(word, "aeiouy"); len(cut) >= 2 {
		return cut
	}
	return word
}

func adjective(random *rand.Rand, name string) string {
	endings := []string{"ian", "an", "ese", "ish", "i", "ian", "an"}
	return stem(name) + endings[random.IntN(len(endings))]
}

// kin is another name with the same beginning.
func kin(random *rand.Rand, name string) string {
	endings := []string{"ia", "a", "o", "iers", "is", "eria", "ana", "er", "on", "us", "ey", "-Bas", "u", "i"}
	s := []rune(stem(name))
	if len(s) > 4 && random.IntN(2) == 0 {
		s = s[:len(s)-1]
	}
	return string(s) + endings[random.IntN(len(endings))]
}
