package worldfacts

import "math"

// World is a set of countries and the relations between them, real or
// invented. Everything else (cities, currencies, languages, regions, domains)
// is named by the countries.
type World struct {
	Countries []Country
}

// Country is one country with its facts.
type Country struct {
	Name       string
	Aliases    []string // other names that count as right answers
	Capital    string
	Currencies []string // in use, at least one
	Languages  []string // sorted by name, at least one
	Region     string   // such as "Southern Europe"
	Continent  string   // such as "Europe"
	Domain     string   // top-level internet domain such as ".al"; "" when it has none of its own
	Neighbours []int    // indexes of the countries that share a land border
	Area       float64  // km²; 0 when unknown
	Latitude   float64  // of the centre, degrees north
	Longitude  float64  // of the centre, degrees east
}

// largest returns the index of the largest (sign +1) or smallest (sign -1)
// country of a set, or false when an area is unknown or two are equal.
func (w *World) largest(set []int, sign float64) (int, bool) {
	best, tie := -1, false
	for _, i := range set {
		area := w.Countries[i].Area
		if area <= 0 {
			return 0, false
		}
		switch {
		case best < 0 || sign*area > sign*w.Countries[best].Area:
			best, tie = i, false
		case area == w.Countries[best].Area:
			tie = true
		}
	}
	return best, best >= 0 && !tie
}

// nearest returns the index of the country whose centre is nearest to that of
// country i. Two that differ by less than one part in a million count as
// equal, so that rounding on another machine cannot change the answer.
func (w *World) nearest(i int) (int, bool) {
	best, first, second := -1, math.Inf(1), math.Inf(1)
	for j := range w.Countries {
		if j == i {
			continue
		}
		d := angle(&w.Countries[i], &w.Countries[j])
		switch {
		case d < first:
			best, first, second = j, d, first
		case d < second:
			second = d
		}
	}
	return best, best >= 0 && second > first*(1+1e-6)
}

// angle is the angle in radians between the centres of two countries, seen
// from the centre of the earth (haversine formula).
func angle(a, b *Country) float64 {
	const degree = math.Pi / 180
	dLat := math.Sin((b.Latitude - a.Latitude) * degree / 2)
	dLon := math.Sin((b.Longitude - a.Longitude) * degree / 2)
	h := dLat*dLat + math.Cos(a.Latitude*degree)*math.Cos(b.Latitude*degree)*dLon*dLon
	return 2 * math.Asin(math.Sqrt(math.Min(1, h)))
}
