package worldfacts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
)

// The types of questions. A bridge question needs the answer of one hop to ask
// the next; a single question has one hop.
const (
	TypeSingle       = "single"
	TypeBridge       = "bridge"
	TypeComparison   = "comparison"
	TypeIntersection = "intersection"
)

// Dataset is the data set name of every task of this package.
const Dataset = "worldfacts"

// Options says which questions to make. The zero value makes all questions of
// one to three hops and calls them Train.
type Options struct {
	// Split tells the split of the countries of a region. A question is made
	// only when all it passes through belongs to one split. Nil: all Train.
	Split func(region string) forager.Split
	// Limit is the most questions of a split for each number of hops; a split
	// that is absent, or 0, has no limit.
	Limit map[forager.Split]int
	// MaxHops is the most hops, 1 to 3; 0 means 3.
	MaxHops int
	// Seed varies which questions are chosen under a limit, and their wording.
	Seed uint64
}

// Questions makes questions about the world, sorted by split, hops and id.
//
// Every answer is unique in the world. In a single or bridge question no
// entity that has to be found occurs in the question or in a passage read
// before the one that tells it, so that stopping early or skipping a hop is
// always wrong. Of the questions of two hops at most 15 % are comparisons and
// 10 % intersections. The decomposition has one hop for each search.
func (w *World) Questions(o Options) []forager.Task {
	m := newMaker(w, o)
	maxHops := o.MaxHops
	if maxHops <= 0 || maxHops > 3 {
		maxHops = 3
	}
	var tasks []forager.Task
	for _, split := range []forager.Split{forager.Train, forager.Dev, forager.Test} {
		for hops := 1; hops <= maxHops; hops++ {
			chosen := m.choose(split, hops, o.Limit[split])
			for i := range chosen {
				chosen[i].ID = fmt.Sprintf("%s-%s-%d-%04d", Dataset, split, hops, i)
			}
			tasks = append(tasks, chosen...)
		}
	}
	return tasks
}

// maker makes the questions of one world.
type maker struct {
	*atlas
	seed       string
	owner      []forager.Split // of each entity
	searchable []bool          // of each entity, see findSearchable
	taken      map[string]bool // question texts, lower case
}

func newMaker(w *World, o Options) *maker {
	m := &maker{atlas: newAtlas(w), seed: fmt.Sprint(o.Seed), taken: make(map[string]bool)}
	m.owner = make([]forager.Split, len(m.entities))
	for i := range m.entities {
		// What countries of several splits share, such as the euro, is left
		// to Train.
		owner := forager.Train
		if o.Split != nil {
			members := m.entities[i].members
			owner = o.Split(w.Countries[members[0]].Region)
			for _, c := range members[1:] {
				if o.Split(w.Countries[c].Region) != owner {
					owner = forager.Train
				}
			}
		}
		m.owner[i] = owner
	}
	m.findSearchable()
	return m
}

// choose makes up to limit questions (0: all) of a split and a number of hops.
func (m *maker) choose(split forager.Split, hops, limit int) []forager.Task {
	if hops != 2 {
		return m.chains(split, hops, limit)
	}
	comparisons, intersections := m.comparisons(split), m.intersections(split)
	bridges := limit
	if limit > 0 { // leave room for the other types
		bridges -= min(len(comparisons), limit*12/100) + min(len(intersections), limit*8/100)
	}
	tasks := m.chains(split, hops, bridges)
	total := len(tasks) * 10 / 8 // bridges are at least four fifths
	if limit > 0 {
		total = min(total, limit)
	}
	tasks = append(tasks, comparisons[:min(len(comparisons), total*12/100)]...)
	return append(tasks, intersections[:min(len(intersections), total*8/100)]...)
}

// chains makes single and bridge questions. It takes one of every pattern in
// turn, so that under a limit all patterns are represented.
func (m *maker) chains(split forager.Split, hops, limit int) []forager.Task {
	all := patterns(hops)
	salt := fmt.Sprint(m.seed, "pattern", hops, " ")
	order := func(i int) uint64 { return hash(salt + fmt.Sprint(i)) }
	turns := make([]int, len(all)) // the patterns in a shuffled order
	for i := range turns {
		turns[i] = i
	}
	slices.SortFunc(turns, func(i, j int) int { return cmp.Compare(order(i), order(j)) })
	starts := make([][]int, len(all)) // entities to start from, in a shuffled order
	for i, p := range all {
		starts[i] = m.owned(p[0].from, split)
		m.shuffle(starts[i], salt+fmt.Sprint(i, " "))
	}
	var tasks []forager.Task
	for left := true; left; {
		left = false
		for _, i := range turns {
			for len(starts[i]) > 0 {
				start := starts[i][0]
				starts[i] = starts[i][1:]
				task, ok := m.chain(all[i], start, split)
				if !ok {
					continue
				}
				tasks = append(tasks, task)
				if limit > 0 && len(tasks) == limit {
					return tasks
				}
				left = true
				break
			}
		}
	}
	return tasks
}

// chain makes the question of a pattern from one entity, or reports that it
// would leave the split, give its answer away or be ambiguous.
func (m *maker) chain(p pattern, start int, split forager.Split) (forager.Task, bool) {
	path, ok := m.follow(p, start)
	if !ok {
		return forager.Task{}, false
	}
	for i, e := range path {
		if m.owner[e] != split || i < len(p) && !m.searchable[e] {
			return forager.Task{}, false
		}
	}
	choice := hash(m.seed + "wording" + m.entities[start].passage.ID + fmt.Sprint(path))
	question := ask(p, &m.entities[start], choice)
	asked := plain(question)
	for i, e := range path[1:] {
		found := &m.entities[e]
		if found.mentionedIn(asked) || !found.mentionedIn(m.entities[path[i]].plainPassage) {
			return forager.Task{}, false
		}
		for _, earlier := range path[:i] {
			if found.mentionedIn(m.entities[earlier].plainPassage) {
				return forager.Task{}, false
			}
		}
	}
	task := forager.Task{Split: split, Question: question, Answers: m.entities[path[len(path)-1]].answers, Type: TypeBridge, Hops: len(p)}
	if len(p) == 1 {
		task.Type = TypeSingle
	}
	for i, r := range p {
		from := &m.entities[path[i]]
		m.addHop(&task, from, ask(pattern{r}, from, choice+uint64(i)), m.entities[path[i+1]].name)
	}
	return m.finish(task)
}

// addHop adds a search for the passage of an entity.
func (m *maker) addHop(task *forager.Task, e *entity, question, answer string) {
	task.Gold = append(task.Gold, e.passage.ID)
	task.GoldTitles = append(task.GoldTitles, e.passage.Title)
	task.Decomposition = append(task.Decomposition, forager.Hop{Question: question, Answer: answer, Gold: e.passage.ID, Query: query(e)})
}

// finish completes a task unless its question was asked before.
func (m *maker) finish(task forager.Task) (forager.Task, bool) {
	key := strings.ToLower(task.Question)
	if m.taken[key] {
		return forager.Task{}, false
	}
	m.taken[key] = true
	task.Dataset = Dataset
	return task, true
}

// owned lists the searchable entities of a kind that belong to a split.
func (m *maker) owned(kind string, split forager.Split) []int {
	var all []int
	for e := range m.entities {
		if m.entities[e].kind == kind && m.owner[e] == split && m.searchable[e] {
			all = append(all, e)
		}
	}
	return all
}

// shuffle orders entities by a hash of salt and passage id.
func (m *maker) shuffle(entities []int, salt string) {
	slices.SortFunc(entities, func(a, b int) int {
		return cmp.Compare(hash(salt+m.entities[a].passage.ID), hash(salt+m.entities[b].passage.ID))
	})
}

// findSearchable marks the entities that a search by name can find first: not
// domains such as ".at" or ".is", which a search engine drops as stop words, and
// not names that are part of another one of their kind, as Guinea is of
// Guinea-Bissau. The others can still be answers.
func (m *maker) findSearchable() {
	const stopWords = " am an as at be by do he if in is it me my no of on or so to us we "
	m.searchable = make([]bool, len(m.entities))
	byKind := make(map[string][]string) // names in plain form
	for i := range m.entities {
		e := &m.entities[i]
		byKind[e.kind] = append(byKind[e.kind], plain(e.name))
	}
	for i := range m.entities {
		e := &m.entities[i]
		name := plain(e.name)
		m.searchable[i] = !strings.Contains(stopWords, name) && !slices.ContainsFunc(byKind[e.kind], func(other string) bool {
			return len(other) > len(name) && strings.Contains(other, name)
		})
	}
}
