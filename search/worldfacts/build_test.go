package worldfacts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
)

func mustBuild(t testing.TB) ([]forager.Task, map[string]forager.Passage) {
	t.Helper()
	tasks, corpus, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]forager.Passage)
	for _, p := range corpus {
		byID[p.ID] = p
	}
	return tasks, byID
}

func TestBuildIsTheSameEverywhere(t *testing.T) {
	const golden = "96c33ad58cd259ab9cb5c6744e2040e1a8be27d9e045053b35ce1958416f1c9d"
	var digests [2]string
	for i := range digests {
		tasks, corpus, err := Build()
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if err := json.NewEncoder(h).Encode([]any{tasks, corpus}); err != nil {
			t.Fatal(err)
		}
		digests[i] = hex.EncodeToString(h.Sum(nil))
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds differ: %s and %s", digests[0], digests[1])
	}
	if digests[0] != golden {
		t.Errorf("digest %s, want %s: if the task was meant to change, results measured on the old one no longer compare", digests[0], golden)
	}
}

func TestCounts(t *testing.T) {
	tasks, _ := mustBuild(t)
	if len(tasks) < 5000 {
		t.Errorf("%d questions, want 5,000 at least", len(tasks))
	}
	counts := make(map[string]int)
	for _, task := range tasks {
		counts[fmt.Sprint(task.Split, task.Hops)]++
		counts[fmt.Sprint(task.Split, task.Hops, task.Type)]++
	}
	for hops := 1; hops <= 3; hops++ {
		for split, bounds := range map[forager.Split][2]int{forager.Train: {1000, 2500}, forager.Dev: {140, 150}, forager.Test: {170, 250}} {
			if n := counts[fmt.Sprint(split, hops)]; n < bounds[0] || n > bounds[1] {
				t.Errorf("%s, %d hops: %d questions, want %d to %d", split, hops, n, bounds[0], bounds[1])
			}
		}
	}
	for _, split := range []forager.Split{forager.Train, forager.Dev, forager.Test} {
		all := counts[fmt.Sprint(split, 2)]
		for kind, most := range map[string]int{TypeComparison: all * 15 / 100, TypeIntersection: all * 10 / 100} {
			if n := counts[fmt.Sprint(split, 2, kind)]; n == 0 || n > most {
				t.Errorf("%s: %d questions of type %s, want 1 to %d", split, n, kind, most)
			}
		}
	}
	countries := make(map[forager.Split]int)
	w := mustReal(t)
	for _, c := range w.Countries {
		countries[SplitOf(c.Region)]++
	}
	for split, share := range map[forager.Split]float64{forager.Train: 0.60, forager.Dev: 0.15, forager.Test: 0.25} {
		if got := float64(countries[split]) / float64(len(w.Countries)); got < share-0.02 || got > share+0.02 {
			t.Errorf("%s has %.2f of the countries, want about %.2f", split, got, share)
		}
	}
}

func TestTasksAreWhole(t *testing.T) {
	tasks, corpus := mustBuild(t)
	ids, texts := make(map[string]bool), make(map[string]bool)
	for _, task := range tasks {
		if err := task.Validate(); err != nil {
			t.Error(err)
		}
		if ids[task.ID] || texts[strings.ToLower(task.Question)] {
			t.Errorf("%s: id or question used twice: %s", task.ID, task.Question)
		}
		ids[task.ID], texts[strings.ToLower(task.Question)] = true, true
		if n := len(strings.Fields(task.Question)); n > 25 || !strings.HasSuffix(task.Question, "?") || strings.Contains(task.Question, "%") {
			t.Errorf("%s: %d words: %s", task.ID, n, task.Question)
		}
		if len(task.Decomposition) != task.Hops || len(task.Gold) != task.Hops || len(task.GoldTitles) != task.Hops {
			t.Errorf("%s: %d hops, %d in the decomposition", task.ID, task.Hops, len(task.Decomposition))
		}
		for i, hop := range task.Decomposition {
			p, ok := corpus[hop.Gold]
			if !ok || task.Gold[i] != hop.Gold || task.GoldTitles[i] != p.Title {
				t.Errorf("%s: hop %d names no passage: %+v", task.ID, i, hop)
			}
			if !strings.Contains(plain(p.Text), plain(hop.Answer)) {
				t.Errorf("%s: %q is not in %q", task.ID, hop.Answer, p.Text)
			}
		}
		last := task.Decomposition[len(task.Decomposition)-1]
		switch task.Type {
		case TypeSingle, TypeBridge:
			if last.Answer != task.Answers[0] {
				t.Errorf("%s ends with %q, its answer is %q", task.ID, last.Answer, task.Answers[0])
			}
		case TypeIntersection:
			for _, hop := range task.Decomposition {
				if !strings.Contains(plain(hop.Answer), plain(task.Answers[0])) {
					t.Errorf("%s: %q is not among %q", task.ID, task.Answers[0], hop.Answer)
				}
			}
		case TypeComparison:
			same := task.Decomposition[0].Answer == last.Answer
			if strings.HasPrefix(task.Question, "Do ") && (task.Answers[0] == "yes") != same {
				t.Errorf("%s: %s %v", task.ID, task.Question, task.Answers)
			}
			if strings.HasPrefix(task.Question, "Which ") && same {
				t.Errorf("%s: both lie in %s", task.ID, last.Answer)
			}
		}
	}
}

// Nothing that a bridge question is about to find may be known before.
func TestNoHopCanBeSkipped(t *testing.T) {
	tasks, corpus := mustBuild(t)
	for _, task := range tasks {
		if task.Type != TypeBridge && task.Type != TypeSingle {
			continue
		}
		for i, hop := range task.Decomposition {
			wanted := []string{hop.Answer}
			if i == task.Hops-1 {
				wanted = task.Answers
			}
			for _, answer := range wanted {
				if strings.Contains(plain(task.Question), plain(answer)) {
					t.Errorf("%s: %q stands in the question: %s", task.ID, answer, task.Question)
				}
				for _, earlier := range task.Decomposition[:i] {
					p := corpus[earlier.Gold]
					if strings.Contains(plain(p.Title+" "+p.Text), plain(answer)) {
						t.Errorf("%s: %q stands in an earlier passage: %s", task.ID, answer, p.Text)
					}
				}
			}
		}
	}
}

// Everything that a held-out question names or passes through belongs to
// countries of its split, and answers of test chains are answers nowhere else.
func TestSplitsShareNothing(t *testing.T) {
	w := mustReal(t)
	tasks, _ := mustBuild(t)
	members := make(map[string][]int) // of passage ids
	a := newAtlas(w)
	for _, e := range a.entities {
		members[e.passage.ID] = e.members
	}
	answers := make(map[string]bool) // of train and dev, in plain form
	for _, task := range tasks {
		for _, id := range task.Gold {
			for _, c := range members[id] {
				if task.Split != forager.Train && SplitOf(w.Countries[c].Region) != task.Split {
					t.Errorf("%s goes through %s, which %s has too", task.ID, id, w.Countries[c].Name)
				}
			}
		}
		if task.Split != forager.Test {
			for _, answer := range task.Answers {
				answers[plain(answer)] = true
			}
		}
	}
	for _, task := range tasks {
		if task.Split != forager.Test || task.Type == TypeComparison && len(task.Answers[0]) <= 3 { // yes and no
			continue
		}
		for _, answer := range task.Answers {
			if answers[plain(answer)] {
				t.Errorf("%s: %q is an answer of train or dev too", task.ID, answer)
			}
		}
	}
}

// The facts behind every hop are looked up again, straight from the countries,
// and must leave one answer.
func TestAnswersAreUnique(t *testing.T) {
	w := mustReal(t)
	tasks, _ := mustBuild(t)
	for _, task := range tasks {
		if task.Type == TypeComparison || task.Type == TypeIntersection {
			continue
		}
		for _, hop := range task.Decomposition {
			if got := lookUp(w, hop); !slices.Equal(got, []string{hop.Answer}) {
				t.Errorf("%s: %s has the answers %q, want %q", task.ID, hop.Question, got, hop.Answer)
			}
		}
	}
	for _, task := range tasks {
		if task.Type != TypeIntersection {
			continue
		}
		var got []string
		for _, c := range w.Countries {
			if hasAll(c, task.Decomposition) {
				got = append(got, c.Name)
			}
		}
		if !slices.Equal(got, task.Answers[:1]) {
			t.Errorf("%s: %s has the answers %q, want %q", task.ID, task.Question, got, task.Answers[0])
		}
	}
}

func hasAll(c Country, hops []forager.Hop) bool {
	for _, hop := range hops {
		_, name, _ := strings.Cut(hop.Query, " ")
		if c.Region != name && !slices.Contains(c.Currencies, name) && !slices.Contains(c.Languages, name) {
			return false
		}
	}
	return true
}

// lookUp answers the question of one hop by going through all countries.
func lookUp(w *World, hop forager.Hop) []string {
	kind, name, _ := strings.Cut(hop.Query, " ")
	asked := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(hop.Question, word) })
	}
	var inSet []Country
	for _, c := range w.Countries {
		if kind == KindCountry && c.Name == name || kind == KindCity && c.Capital == name || kind == KindRegion && c.Region == name ||
			kind == KindDomain && c.Domain == name || kind == KindCurrency && slices.Contains(c.Currencies, name) ||
			kind == KindLanguage && slices.Contains(c.Languages, name) {
			inSet = append(inSet, c)
		}
	}
	best := func(set []Country, better func(a, b Country) bool) []string {
		var names []string
		for _, c := range set {
			if !slices.ContainsFunc(set, func(other Country) bool { return better(other, c) }) {
				names = append(names, c.Name)
			}
		}
		return names
	}
	larger := func(a, b Country) bool { return a.Area > b.Area }
	switch {
	case kind == KindRegion && asked("largest"):
		return best(inSet, larger)
	case kind == KindRegion:
		return best(inSet, func(a, b Country) bool { return a.Area < b.Area })
	case kind != KindCountry:
		return best(inSet, func(a, b Country) bool { return false })
	}
	here := inSet[0]
	var neighbours, others []Country
	for i, c := range w.Countries {
		if slices.Contains(here.Neighbours, i) {
			neighbours = append(neighbours, c)
		}
		if c.Name != here.Name {
			others = append(others, c)
		}
	}
	switch {
	case asked("largest neighbour"):
		return best(neighbours, larger)
	case asked("nearest", "closest"):
		return best(others, func(a, b Country) bool { return angle(&here, &a) < angle(&here, &b) })
	case asked("capital"):
		return []string{here.Capital}
	case asked("currency"):
		return here.Currencies
	case asked("language"):
		return here.Languages
	}
	return []string{here.Region}
}
