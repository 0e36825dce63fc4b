package worldfacts

import (
	"github.com/forager-rl/forager"
)

// SplitOf is the split of the countries of a region of the real world. Whole
// regions, and neighbouring ones together, are held out, so that chains of
// neighbours stay inside a split.
func SplitOf(region string) forager.Split {
	switch region {
	case "Eastern Africa", "Middle Africa", "Southern Africa", "South America", "South-Eastern Asia":
		return forager.Test
	case "Northern Africa", "Western Africa", "Australia and New Zealand", "Micronesia":
		return forager.Dev
	}
	return forager.Train
}

// Build makes the built-in task: the real world's questions, split by SplitOf
// (at most 2,500 of each number of hops in Train, 150 in Dev, 250 in Test), and
// its corpus. The same bytes come out on every machine.
func Build() ([]forager.Task, []forager.Passage, error) {
	w, err := Real()
	if err != nil {
		return nil, nil, err
	}
	tasks := w.Questions(Options{
		Split: SplitOf,
		Limit: map[forager.Split]int{forager.Train: 2500, forager.Dev: 150, forager.Test: 250},
	})
	return tasks, w.Corpus(), nil
}
