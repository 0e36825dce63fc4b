package worldfacts

import "fmt"

// relation leads from an entity of one kind to the only entity that stands in
// it. The fact is in the passage of the entity where it starts.
type relation struct {
	from    string
	follow  func(a *atlas, e *entity) (index int, ok bool)
	phrases []string // noun phrases, "the capital of %s"
	asks    []string // questions, "What is the capital of %s?"
}

// The relations in the order in which a chain may use them: an opening leads
// to a country, steps lead from country to country, and a closing leads away.
func openings() []relation {
	return []relation{
		{
			from:    KindCity,
			follow:  onlyMember,
			phrases: []string{"the country whose capital is %s", "the country with the capital %s"},
			asks:    []string{"Which country has the capital %s?", "Which country is %s the capital of?"},
		},
		{
			from:    KindCurrency,
			follow:  onlyMember,
			phrases: []string{"the only country that uses %s", "the only country where %s is used"},
			asks:    []string{"Which country uses %s?", "In which country is %s used?"},
		},
		{
			from:    KindLanguage,
			follow:  onlyMember,
			phrases: []string{"the only country that speaks %s", "the only country where %s is spoken"},
			asks:    []string{"Which country speaks %s?", "In which country is %s spoken?"},
		},
		{
			from:    KindDomain,
			follow:  onlyMember,
			phrases: []string{"the country with the domain %s", "the country whose domain is %s"},
			asks:    []string{"Which country has the domain %s?", "Which country does the domain %s belong to?"},
		},
		{
			from:    KindRegion,
			follow:  func(a *atlas, e *entity) (int, bool) { return a.world.largest(e.members, 1) },
			phrases: []string{"the largest country in %s", "the largest country of %s"},
			asks:    []string{"What is the largest country in %s?", "Which country is the largest in %s?"},
		},
		{
			from:    KindRegion,
			follow:  func(a *atlas, e *entity) (int, bool) { return a.world.largest(e.members, -1) },
			phrases: []string{"the smallest country in %s", "the smallest country of %s"},
			asks:    []string{"What is the smallest country in %s?", "Which country is the smallest in %s?"},
		},
	}
}

func steps() []relation {
	return []relation{
		{
			from:    KindCountry,
			follow:  func(a *atlas, e *entity) (int, bool) { return a.world.largest(a.country(e).Neighbours, 1) },
			phrases: []string{"the largest neighbour of %s", "the largest country bordering %s"},
			asks:    []string{"What is the largest neighbour of %s?", "Which country is the largest neighbour of %s?"},
		},
		{
			from:    KindCountry,
			follow:  func(a *atlas, e *entity) (int, bool) { return a.nearest[e.members[0]], a.nearest[e.members[0]] >= 0 },
			phrases: []string{"the country nearest to %s", "the country closest to %s"},
			asks:    []string{"Which country is nearest to %s?", "Which country lies closest to %s?"},
		},
	}
}

func closings() []relation {
	return []relation{
		{
			from:   KindCountry,
			follow: func(a *atlas, e *entity) (int, bool) { return a.named(KindCity, a.country(e).Capital) },
			asks:   []string{"What is the capital of %s?", "Which city is the capital of %s?"},
		},
		{
			from:   KindCountry,
			follow: func(a *atlas, e *entity) (int, bool) { return a.named(KindCurrency, a.country(e).Currencies...) },
			asks:   []string{"What is the currency of %s?", "Which currency does %s use?", "Which currency is used in %s?"},
		},
		{
			from:   KindCountry,
			follow: func(a *atlas, e *entity) (int, bool) { return a.named(KindLanguage, a.country(e).Languages...) },
			asks:   []string{"What is the language of %s?", "Which language is spoken in %s?"},
		},
		regionOf(),
	}
}

func regionOf() relation {
	return relation{
		from:   KindCountry,
		follow: func(a *atlas, e *entity) (int, bool) { return a.named(KindRegion, a.country(e).Region) },
		asks:   []string{"In which region does %s lie?", "Which region does %s belong to?"},
	}
}

// onlyMember leads to the one country that has the entity.
func onlyMember(_ *atlas, e *entity) (int, bool) { return e.members[0], len(e.members) == 1 }

// named finds the entity of a kind when there is one name only: of a country
// with two currencies nobody can ask for "the" currency.
func (a *atlas) named(kind string, names ...string) (int, bool) {
	if len(names) != 1 {
		return 0, false
	}
	i, ok := a.byName[kind+" "+names[0]]
	return i, ok
}

// pattern is a sequence of relations, one for each hop.
type pattern []relation

// patterns lists the sequences of a number of hops: at most one opening, at
// most two steps, at most one closing.
func patterns(hops int) []pattern {
	all := []pattern{{}}
	extend := func(more []relation) {
		for _, p := range all[:len(all):len(all)] {
			for _, r := range more {
				all = append(all, append(p[:len(p):len(p)], r))
			}
		}
	}
	extend(openings())
	opened := len(all)
	extend(steps())
	for _, p := range all[opened:len(all):len(all)] {
		for _, r := range steps() {
			all = append(all, append(p[:len(p):len(p)], r))
		}
	}
	extend(closings())
	var exact []pattern
	for _, p := range all {
		if len(p) == hops {
			exact = append(exact, p)
		}
	}
	return exact
}

// follow walks a pattern from an entity and returns the entities passed, the
// first one included. All of them are different.
func (a *atlas) follow(p pattern, start int) ([]int, bool) {
	path := []int{start}
	for _, r := range p {
		next, ok := r.follow(a, &a.entities[path[len(path)-1]])
		if !ok {
			return nil, false
		}
		for _, seen := range path {
			if seen == next {
				return nil, false
			}
		}
		path = append(path, next)
	}
	return path, true
}

// ask words the question of a pattern about an entity. The choice picks among
// the wordings.
func ask(p pattern, about *entity, choice uint64) string {
	phrase := refer(about)
	for _, r := range p[:len(p)-1] {
		phrase = fmt.Sprintf(r.phrases[choice%uint64(len(r.phrases))], phrase)
		choice /= 7
	}
	asks := p[len(p)-1].asks
	return fmt.Sprintf(asks[choice%uint64(len(asks))], phrase)
}

// refer names an entity inside a sentence.
func refer(e *entity) string {
	switch e.kind {
	case KindCurrency:
		return "the " + e.name
	case KindCountry, KindRegion:
		return the(e.name)
	}
	return e.name
}

// query is the search query that finds the passage of an entity.
func query(e *entity) string { return e.kind + " " + e.name }
