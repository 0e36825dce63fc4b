package worldfacts

import (
	"slices"
	"testing"
)

func mustReal(t testing.TB) *World {
	t.Helper()
	w, err := Real()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *World) index(t *testing.T, name string) int {
	t.Helper()
	i := slices.IndexFunc(w.Countries, func(c Country) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("%s is missing", name)
	}
	return i
}

func TestRealWorld(t *testing.T) {
	w := mustReal(t)
	if len(w.Countries) != 243 {
		t.Errorf("%d countries, want 243", len(w.Countries))
	}
	seen := make(map[string]bool)
	for i, c := range w.Countries {
		if seen[plain(c.Name)] {
			t.Errorf("%s occurs twice", c.Name)
		}
		seen[plain(c.Name)] = true
		if c.Area <= 0 || c.Capital == "" || c.Region == "" || c.Continent == "" || len(c.Currencies) == 0 || len(c.Languages) == 0 {
			t.Errorf("%s lacks a fact: %+v", c.Name, c)
		}
		for _, j := range c.Neighbours {
			if j == i || !slices.Contains(w.Countries[j].Neighbours, i) {
				t.Errorf("the border of %s and %s is one-sided", c.Name, w.Countries[j].Name)
			}
		}
		if _, ok := w.nearest(i); !ok {
			t.Errorf("%s has two nearest countries", c.Name)
		}
	}
}

func TestKnownFacts(t *testing.T) {
	w := mustReal(t)
	for _, known := range []struct{ country, capital, currency, domain, largest, nearest string }{
		{"Albania", "Tirana", "Albanian lek", ".al", "Greece", "Macedonia"},
		{"United Kingdom", "London", "British pound", ".uk", "Ireland", "Isle of Man"},
		{"Switzerland", "Bern", "Swiss franc", ".ch", "France", "Liechtenstein"},
		{"Japan", "Tokyo", "Japanese yen", ".jp", "", "South Korea"},
		{"Republic of the Congo", "Brazzaville", "Central African franc", ".cg", "DR Congo", "Gabon"},
	} {
		i := w.index(t, known.country)
		c := w.Countries[i]
		largest := ""
		if j, ok := w.largest(c.Neighbours, 1); ok {
			largest = w.Countries[j].Name
		}
		nearest, _ := w.nearest(i)
		if c.Capital != known.capital || !slices.Equal(c.Currencies, []string{known.currency}) || c.Domain != known.domain ||
			largest != known.largest || w.Countries[nearest].Name != known.nearest {
			t.Errorf("got %+v, largest neighbour %q, nearest %q, want %+v", c, largest, w.Countries[nearest].Name, known)
		}
	}
}

func TestNearestRefusesTies(t *testing.T) {
	w := &World{Countries: []Country{{Longitude: 0}, {Longitude: 1}, {Longitude: -1}, {Longitude: 1.5}}}
	if i, ok := w.nearest(0); ok {
		t.Errorf("two countries are one degree away, got %d", i)
	}
	if i, ok := w.nearest(3); !ok || i != 1 {
		t.Errorf("got %d, %v, want 1", i, ok)
	}
}

func TestLargestRefusesTiesAndUnknownAreas(t *testing.T) {
	w := &World{Countries: []Country{{Area: 1}, {Area: 2}, {Area: 2}, {Area: 0}}}
	for _, c := range []struct {
		set  []int
		sign float64
		want int
		ok   bool
	}{
		{[]int{0, 1}, 1, 1, true},
		{[]int{0, 1, 2}, 1, 0, false},
		{[]int{0, 1, 2}, -1, 0, true},
		{[]int{0, 3}, 1, 0, false},
		{nil, 1, 0, false},
	} {
		if got, ok := w.largest(c.set, c.sign); ok != c.ok || ok && got != c.want {
			t.Errorf("largest(%v, %v) = %d, %v", c.set, c.sign, got, ok)
		}
	}
}
