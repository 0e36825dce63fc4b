package worldfacts

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/forager-rl/forager"
)

// comparisons makes questions about the regions of two countries: which of
// them lies in a region, and whether both lie in the same one.
func (m *maker) comparisons(split forager.Split) []forager.Task {
	countries := m.owned(KindCountry, split)
	var tasks []forager.Task
	for turn := range 2 {
		for _, first := range countries {
			others := slices.Clone(countries)
			m.shuffle(others, fmt.Sprint(m.seed, "comparison", turn, first))
			a := &m.entities[first]
			kind := hash(fmt.Sprint(m.seed, "kind", turn, a.name)) % 4
			sameRegion := kind == 0
			i := slices.IndexFunc(others, func(second int) bool {
				b := &m.entities[second]
				return second != first && (m.country(a).Region == m.country(b).Region) == sameRegion &&
					!a.mentionedIn(plain(b.name)) && !b.mentionedIn(plain(a.name))
			})
			if i < 0 {
				continue
			}
			b := &m.entities[others[i]]
			task := forager.Task{Split: split, Type: TypeComparison, Hops: 2}
			switch kind {
			case 0, 1:
				task.Question = fmt.Sprintf("Do %s and %s lie in the same region?", refer(a), refer(b))
				task.Answers = []string{"no"}
				if sameRegion {
					task.Answers = []string{"yes"}
				}
			default:
				right := []*entity{a, b}[kind-2]
				task.Question = fmt.Sprintf("Which of %s and %s lies in %s?", refer(a), refer(b), the(m.country(right).Region))
				task.Answers = right.answers
			}
			for _, e := range []*entity{a, b} {
				m.addHop(&task, e, ask(pattern{regionOf()}, e, hash(e.name)), m.country(e).Region)
			}
			if task, ok := m.finish(task); ok {
				tasks = append(tasks, task)
			}
		}
	}
	return m.mixed(tasks, "comparison")
}

// intersections makes questions whose answer is the only country on two lists.
func (m *maker) intersections(split forager.Split) []forager.Task {
	wordings := []struct{ first, second, text string }{
		{KindCurrency, KindLanguage, "Which country uses %s and speaks %s?"},
		{KindLanguage, KindLanguage, "Which country speaks both %s and %s?"},
		{KindRegion, KindLanguage, "Which country in %s speaks %s?"},
		{KindRegion, KindCurrency, "Which country in %s uses %s?"},
	}
	lists := make(map[string][]int)
	for _, kind := range []string{KindCurrency, KindLanguage, KindRegion} {
		for _, e := range m.owned(kind, split) {
			if n := len(m.entities[e].members); n > 1 && n <= maxListed {
				lists[kind] = append(lists[kind], e)
			}
		}
	}
	var tasks []forager.Task
	for _, wording := range wordings {
		for _, first := range lists[wording.first] {
			for _, second := range lists[wording.second] {
				if wording.first == wording.second && first >= second {
					continue
				}
				a, b := &m.entities[first], &m.entities[second]
				var both []int
				for _, c := range a.members {
					if slices.Contains(b.members, c) {
						both = append(both, c)
					}
				}
				if len(both) != 1 || m.owner[both[0]] != split {
					continue
				}
				task := forager.Task{Split: split, Type: TypeIntersection, Hops: 2, Answers: m.entities[both[0]].answers}
				task.Question = fmt.Sprintf(wording.text, refer(a), refer(b))
				for _, e := range []*entity{a, b} {
					m.addHop(&task, e, map[string]string{
						KindCurrency: "Which countries use %s?",
						KindLanguage: "Which countries speak %s?",
						KindRegion:   "Which countries lie in %s?",
					}[e.kind], listed(each("", m.names(e.members))))
					hop := &task.Decomposition[len(task.Decomposition)-1]
					hop.Question = fmt.Sprintf(hop.Question, refer(e))
				}
				if task, ok := m.finish(task); ok {
					tasks = append(tasks, task)
				}
			}
		}
	}
	return m.mixed(tasks, "intersection")
}

// mixed orders tasks by a hash of salt and question.
func (m *maker) mixed(tasks []forager.Task, salt string) []forager.Task {
	slices.SortFunc(tasks, func(a, b forager.Task) int {
		return cmp.Compare(hash(m.seed+salt+a.Question), hash(m.seed+salt+b.Question))
	})
	return tasks
}
