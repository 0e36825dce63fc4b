package worldfacts

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func inventWith(names *Names, seed uint64, n int) *World {
	rng := rand.New(rand.NewPCG(seed, 0))
	return Invent(rng, n, names.Using(rng))
}

// shape measures what an invented world should have in common with the real
// one: shares and means over countries.
func shape(w *World) map[string]float64 {
	s := make(map[string]float64)
	n := float64(len(w.Countries))
	users, speakers, regions := make(map[string]float64), make(map[string]float64), make(map[string]float64)
	for _, c := range w.Countries {
		regions[c.Region]++
		if len(c.Neighbours) > 0 {
			s["bordered"] += 1 / n
		}
		s["neighbours"] += float64(len(c.Neighbours)) / n
		if len(c.Languages) == 1 {
			s["one language"] += 1 / n
		}
		s["letters of a country"] += float64(len([]rune(c.Name))) / n
		s["letters of a capital"] += float64(len([]rune(c.Capital))) / n
		if strings.Contains(c.Name, " ") {
			s["several words"] += 1 / n
		}
		for _, name := range c.Currencies {
			users[name]++
		}
		for _, name := range c.Languages {
			speakers[name]++
		}
	}
	s["currencies"], s["languages"], s["regions"] = float64(len(users))/n, float64(len(speakers))/n, float64(len(regions))/n
	for name := range users {
		s["letters of a currency"] += float64(len([]rune(name))) / float64(len(users))
	}
	for name := range speakers {
		s["letters of a language"] += float64(len([]rune(name))) / float64(len(speakers))
	}
	return s
}

func TestInventedWorldHasTheShapeOfTheReal(t *testing.T) {
	world := mustReal(t)
	want, got := shape(world), shape(inventWith(NewNames(world), 1, len(world.Countries)))
	for name, x := range want {
		t.Logf("%-22s real %.2f, invented %.2f", name, x, got[name])
		if got[name] < 0.7*x-0.03 || got[name] > 1.4*x+0.03 {
			t.Errorf("%s: real %.2f, invented %.2f", name, x, got[name])
		}
	}
}

func TestInventIsDeterministic(t *testing.T) {
	world := mustReal(t)
	a, b, c := inventWith(NewNames(world), 7, 24), inventWith(NewNames(world), 7, 24), inventWith(NewNames(world), 8, 24)
	if !reflect.DeepEqual(a, b) {
		t.Error("one seed made two worlds")
	}
	if reflect.DeepEqual(a, c) {
		t.Error("two seeds made one world")
	}
	if !reflect.DeepEqual(a.Questions(Options{Seed: 1}), b.Questions(Options{Seed: 1})) {
		t.Error("one seed made two lists of questions")
	}
}

// Demonstrations are made of invented worlds: no held-out name may occur in
// one, and no word that only held-out names have.
func TestNamesShowNothingHeldOut(t *testing.T) {
	world := mustReal(t)
	m := newMaker(world, Options{Split: SplitOf})
	known, held := make(map[string]bool), make(map[string]bool)
	for i := range m.entities {
		for _, word := range strings.Fields(plain(m.entities[i].name)) {
			if m.owner[i] == forager.Train {
				known[word] = true
			} else if len([]rune(word)) > 3 {
				held[word] = true
			}
		}
	}
	whole := make(map[string]bool)
	for i := range m.entities {
		whole[plain(m.entities[i].name)] = true
	}
	names := NewNames(world)
	name := names.Using(rand.New(rand.NewPCG(3, 4)))
	for _, kind := range []string{KindCountry, KindCity, KindCurrency, KindLanguage, KindRegion, KindContinent} {
		for range 5000 {
			got := plain(name(kind))
			if whole[got] {
				t.Errorf("%s%q is real", kind, got)
			}
			for _, word := range strings.Fields(got) {
				if held[word] && !known[word] {
					t.Errorf("%s%q: the word %s is held out", kind, got, word)
				}
			}
		}
	}
}

func TestNamesFromAWorldTooSmallToLearnFrom(t *testing.T) {
	w := &World{Countries: []Country{{Name: "A", Capital: "B", Currencies: []string{"C"}, Languages: []string{"D"}, Region: "E"}}}
	name := NewNames(w).Using(rand.New(rand.NewPCG(1, 1)))
	for _, kind := range []string{KindCountry, KindCity, KindCurrency, KindLanguage} {
		if name(kind) == "" {
			t.Errorf("no name for a %s", kind)
		}
	}
}

func TestInventBoundsAStubbornNameFunction(t *testing.T) {
	w := Invent(rand.New(rand.NewPCG(1, 1)), 5, func(string) string { return "Same" })
	seen := make(map[string]bool)
	for _, c := range w.Countries {
		if seen[c.Name] || seen[c.Capital] {
			t.Errorf("%s or %s was used twice", c.Name, c.Capital)
		}
		seen[c.Name], seen[c.Capital] = true, true
	}
}

func TestQuestionsUnderALimitVary(t *testing.T) {
	w := inventWith(NewNames(mustReal(t)), 5, 24)
	relations := make(map[string]bool)
	for seed := range uint64(60) {
		tasks := w.Questions(Options{Limit: map[forager.Split]int{forager.Train: 2}, MaxHops: 1, Seed: seed})
		if len(tasks) != 2 {
			t.Fatalf("%d questions, want 2", len(tasks))
		}
		for _, task := range tasks {
			relations[strings.Join(strings.Fields(task.Question)[:3], " ")] = true
		}
	}
	if len(relations) < 10 {
		t.Errorf("only %d forms of questions in 120: %v", len(relations), relations)
	}
}

// The promises of a task hold in any invented world.
func FuzzInventedQuestions(f *testing.F) {
	names := NewNames(mustReal(f))
	for seed, n := range []uint8{0, 2, 5, 12, 30} {
		f.Add(uint64(seed), n)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		w := inventWith(names, seed, int(n%32))
		texts := make(map[string]string)
		for _, p := range w.Corpus() {
			if _, ok := texts[p.ID]; ok {
				t.Errorf("the id %s is used twice", p.ID)
			}
			texts[p.ID] = plain(p.Title + " " + p.Text)
		}
		for _, task := range w.Questions(Options{Limit: map[forager.Split]int{forager.Train: 40}, Seed: seed}) {
			if err := task.Validate(); err != nil || len(task.Decomposition) != task.Hops {
				t.Errorf("%v: %+v", err, task)
			}
			for i, hop := range task.Decomposition {
				if !strings.Contains(texts[hop.Gold], plain(hop.Answer)) {
					t.Errorf("%s: %q is not in %q", task.Question, hop.Answer, texts[hop.Gold])
				}
				if task.Type != TypeSingle && task.Type != TypeBridge {
					continue
				}
				if got := lookUp(w, hop); !slices.Equal(got, []string{hop.Answer}) {
					t.Errorf("%s has the answers %q, want %q", hop.Question, got, hop.Answer)
				}
				for _, earlier := range task.Gold[:i] {
					if strings.Contains(texts[earlier], plain(hop.Answer)) {
						t.Errorf("%s: %q stands in %s", task.Question, hop.Answer, earlier)
					}
				}
			}
		}
	})
}

func BenchmarkDemonstrationWorld(b *testing.B) {
	names := NewNames(mustReal(b))
	for _, n := range []int{12, 24} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				w := inventWith(names, uint64(i), n)
				w.Corpus()
				w.Questions(Options{Limit: map[forager.Split]int{forager.Train: 4}, Seed: uint64(i)})
			}
		})
	}
}
