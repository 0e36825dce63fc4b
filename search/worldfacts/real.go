package worldfacts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pariz/gountries"
)

// Real reads the real world: every country or territory of gountries that has
// a capital and a region, sorted by name. It takes about a fifth of a second
// the first time in a process.
func Real() (*World, error) {
	all := gountries.New().FindAllCountries()
	var kept []gountries.Country
	for _, c := range all {
		if c.Capital != "" && c.SubRegion != "" {
			kept = append(kept, c)
		}
	}
	if len(kept) < 200 {
		return nil, fmt.Errorf("read the world from gountries: %d countries with a capital and a region, expected about 240", len(kept))
	}
	slices.SortFunc(kept, func(a, b gountries.Country) int { return strings.Compare(a.Name.Common, b.Name.Common) })

	index := make(map[string]int, len(kept)) // by three-letter code
	for i, c := range kept {
		index[c.Alpha3] = i
	}
	w := &World{Countries: make([]Country, len(kept))}
	for i, c := range kept {
		country, err := convert(c)
		if err != nil {
			return nil, fmt.Errorf("read the world from gountries: %s: %w", c.Name.Common, err)
		}
		w.Countries[i] = country
	}
	// A few borders of the source are listed on one side only: take both.
	for i, c := range kept {
		for _, code := range c.Borders {
			if j, ok := index[code]; ok && !noBorder[c.Alpha3+code] && !noBorder[code+c.Alpha3] {
				w.link(i, j)
			}
		}
	}
	for i := range w.Countries {
		slices.Sort(w.Countries[i].Neighbours)
	}
	return w, nil
}

// link makes two countries neighbours of each other, once.
func (w *World) link(i, j int) {
	if i != j && !slices.Contains(w.Countries[i].Neighbours, j) {
		w.Countries[i].Neighbours = append(w.Countries[i].Neighbours, j)
		w.Countries[j].Neighbours = append(w.Countries[j].Neighbours, i)
	}
}

func convert(c gountries.Country) (Country, error) {
	country := Country{
		Name:      c.Name.Common,
		Capital:   c.Capital,
		Region:    c.SubRegion,
		Continent: c.Region,
		Area:      max(0, c.Area),
		Latitude:  c.Latitude,
		Longitude: c.Longitude,
	}
	if c.Name.Official != "" && c.Name.Official != c.Name.Common {
		country.Aliases = []string{c.Name.Official}
	}
	if area, ok := areas[c.Alpha3]; ok {
		country.Area = area
	}
	if centre, ok := centres[c.Alpha3]; ok {
		country.Latitude, country.Longitude = centre[0], centre[1]
	}
	for _, code := range c.Currencies {
		if slices.Contains(accountingUnits, code) {
			continue
		}
		name, ok := currencyNames[code]
		if !ok {
			return Country{}, fmt.Errorf("no name is known for the currency code %q", code)
		}
		country.Currencies = append(country.Currencies, name)
	}
	for _, name := range c.Languages {
		country.Languages = append(country.Languages, name)
	}
	slices.Sort(country.Languages) // map order is random
	country.Languages = slices.Compact(country.Languages)
	if len(country.Currencies) == 0 || len(country.Languages) == 0 {
		return Country{}, fmt.Errorf("no currency or no language")
	}
	own := "." + strings.ToLower(c.Alpha2)
	if c.Alpha2 == "GB" {
		own = ".uk"
	}
	if slices.Contains(c.TLDs, own) {
		country.Domain = own
	}
	return country, nil
}

// The corrections: what gountries v0.1.6 leaves out or gets wrong and a
// question would ask about.
var (
	// areas in km².
	areas = map[string]float64{"SJM": 62045}

	// centres in degrees: the source gives these countries the coordinates of
	// their neighbour.
	centres = map[string][2]float64{
		"COG": {-0.84, 15.22},
		"KOR": {36.4, 127.8},
		"MAF": {18.09, -63.06},
		"SXM": {18.04, -63.07},
	}

	// noBorder lists pairs without a common land border of the two states.
	noBorder = map[string]bool{"CYPGBR": true, "INDAFG": true, "INDLKA": true, "TCDSSD": true}

	// accountingUnits are currency codes that nobody pays with.
	accountingUnits = []string{"BOV", "CHE", "CHW", "CLF", "USN", "USS", "UYI"}
)
