package worldfacts

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Invent makes a world of n countries (at least 2) with the shape of the real
// one: regions of about eleven countries, a third of them without land
// borders, shared currencies and languages. Every name is asked of the name
// function, which is told the kind of entity; names are never used twice.
func Invent(rng *rand.Rand, n int, name func(kind string) string) *World {
	n = max(n, 2)
	v := &inventor{rng: rng, name: name, used: make(map[string]bool), world: &World{Countries: make([]Country, n)}}
	v.places()
	v.borders()
	v.shares()
	return v.world
}

type inventor struct {
	rng   *rand.Rand
	name  func(kind string) string
	used  map[string]bool // names in plain form
	world *World
}

// fresh asks for names until one is new. After a bounded number of tries it
// numbers the last one.
func (v *inventor) fresh(kind string) string {
	name := ""
	for range 100 {
		name = v.name(kind)
		if key := plain(name); key != "  " && !v.used[key] {
			v.used[key] = true
			return name
		}
	}
	for i := 2; ; i++ {
		numbered := fmt.Sprintf("%s %d", name, i)
		if !v.used[plain(numbered)] {
			v.used[plain(numbered)] = true
			return numbered
		}
	}
}

// places lays out continents, regions and countries, with their names,
// capitals, domains, centres and areas.
func (v *inventor) places() {
	n := len(v.world.Countries)
	type region struct{ name, continent string }
	type centre struct{ latitude, longitude float64 }
	regions := make([]region, max(2, (n+5)/11))
	centres := make([]centre, len(regions))
	continent := ""
	for i := range regions {
		if i%4 == 0 {
			continent = v.fresh(KindContinent)
		}
		regions[i] = region{v.fresh(KindRegion), continent}
		if v.rng.Float64() < 0.7 { // most real regions are a side of a continent
			if side := v.side() + " " + continent; !v.used[plain(side)] {
				v.used[plain(side)] = true
				regions[i].name = side
			}
		}
		centres[i] = centre{v.rng.Float64()*110 - 50, v.rng.Float64()*360 - 180}
	}
	for i := range v.world.Countries {
		r := i % len(regions)
		v.world.Countries[i] = Country{
			Name:      v.fresh(KindCountry),
			Capital:   v.fresh(KindCity),
			Region:    regions[r].name,
			Continent: regions[r].continent,
			Latitude:  min(80, max(-80, centres[r].latitude+8*v.rng.NormFloat64())),
			Longitude: centres[r].longitude + 8*v.rng.NormFloat64(),
		}
		v.world.Countries[i].Domain = v.domain(v.world.Countries[i].Name)
	}
}

func (v *inventor) side() string {
	sides := []string{"Northern", "Southern", "Eastern", "Western", "Central", "Middle", "South-Eastern", "North", "South"}
	return sides[v.rng.IntN(len(sides))]
}

// domain takes two letters of the name, its first one first where possible, or
// any that are free.
func (v *inventor) domain(name string) string {
	var letters []rune
	for _, r := range strings.ToLower(accents.Replace(name)) {
		if r >= 'a' && r <= 'z' {
			letters = append(letters, r)
		}
	}
	for try := range 1000 {
		a, b := rune('a'+v.rng.IntN(26)), rune('a'+v.rng.IntN(26))
		if try < 10 && len(letters) > 1 {
			a, b = letters[0], letters[1+v.rng.IntN(len(letters)-1)]
		}
		domain := "." + string(a) + string(b)
		if !v.used[domain] {
			v.used[domain] = true
			return domain
		}
	}
	return "" // all 676 may be gone
}

// borders gives areas and joins countries of the mainland to the nearest ones.
func (v *inventor) borders() {
	var mainland []int
	for i := range v.world.Countries {
		mean := 7.0 // of the logarithm of the area of an island in km²
		if v.rng.Float64() < 0.66 {
			mean = 11.5
			mainland = append(mainland, i)
		}
		v.world.Countries[i].Area = math.Round(math.Exp(mean + 1.8*v.rng.NormFloat64()))
	}
	for _, i := range mainland {
		here := &v.world.Countries[i]
		near := slices.Clone(mainland)
		slices.SortFunc(near, func(a, b int) int {
			x, y := angle(here, &v.world.Countries[a]), angle(here, &v.world.Countries[b])
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return a - b
		})
		for _, j := range near[1:min(len(near), 2+v.rng.IntN(5))] {
			v.world.link(i, j)
		}
	}
	for i := range v.world.Countries {
		slices.Sort(v.world.Countries[i].Neighbours)
	}
}

// shares hands out currencies and languages. The more countries have one
// already, the likelier it is taken again.
func (v *inventor) shares() {
	var currencies, languages []string // with repetition
	again := func(kind string, pool []string, chance float64) string {
		if len(pool) > 0 && v.rng.Float64() < chance {
			return pool[v.rng.IntN(len(pool))]
		}
		return v.fresh(kind)
	}
	for i := range v.world.Countries {
		c := &v.world.Countries[i]
		c.Currencies = []string{again(KindCurrency, currencies, 0.4)}
		if v.rng.Float64() < 0.05 {
			c.Currencies = append(c.Currencies, v.fresh(KindCurrency))
		}
		currencies = append(currencies, c.Currencies[0])

		count := 1
		for count < 6 && v.rng.Float64() < 0.4 {
			count++
		}
		for range count {
			if l := again(KindLanguage, languages, 0.6); !slices.Contains(c.Languages, l) {
				c.Languages = append(c.Languages, l)
			}
		}
		slices.Sort(c.Languages)
		languages = append(languages, c.Languages...)
	}
}
