package replay

import (
	"cmp"
	"slices"

	"github.com/forager-rl/forager"
)

// maxLabelsPerRollout bounds what one rollout can hold, whoever sends it.
const maxLabelsPerRollout = 1024

// labelKey tells the labels of one rollout apart. A later one replaces an
// earlier one.
type labelKey struct {
	turn   int
	source string
}

// labels is the index of annotations by rollout. Those of rollouts that have not
// come yet wait in a bounded line.
type labels struct {
	maxLabels, maxEarly int
	rollouts            map[string]map[labelKey]forager.Annotation
	expected            map[string]bool // rollouts that are in the table
	early               []string        // the others that have labels, oldest first; may hold some that have come since
	earlyCount          int
	count               int // labels kept
	dropped             uint64
}

func newLabels(maxLabels, maxEarly int) *labels {
	return &labels{
		maxLabels: maxLabels, maxEarly: maxEarly,
		rollouts: make(map[string]map[labelKey]forager.Annotation),
		expected: make(map[string]bool),
	}
}

// add keeps one label, without the text that it came from: the stream has it.
func (l *labels) add(a forager.Annotation) {
	a.Judgement = forager.Judgement{}
	of := l.rollouts[a.RolloutID]
	key := labelKey{a.Turn, a.Source}
	if _, known := of[key]; !known {
		if l.count >= l.maxLabels || len(of) >= maxLabelsPerRollout {
			l.dropped++
			return
		}
		l.count++
	}
	if of == nil {
		of = make(map[labelKey]forager.Annotation)
		l.rollouts[a.RolloutID] = of
		if !l.expected[a.RolloutID] {
			l.early = append(l.early, a.RolloutID)
			l.earlyCount++
		}
	}
	of[key] = a
	for l.earlyCount > l.maxEarly {
		l.dropOldestEarly()
	}
}

func (l *labels) dropOldestEarly() {
	id := l.early[0]
	l.early = l.early[1:]
	if of := l.rollouts[id]; of != nil && !l.expected[id] {
		l.earlyCount--
		l.dropped += uint64(len(of))
		l.count -= len(of)
		delete(l.rollouts, id)
	}
}

// expect says that rollouts are in the table now.
func (l *labels) expect(ids []string) {
	for _, id := range ids {
		if !l.expected[id] && l.rollouts[id] != nil {
			l.earlyCount--
		}
		l.expected[id] = true
	}
	if len(l.early) > 2*l.earlyCount+64 {
		kept := l.early[:0]
		for _, id := range l.early {
			if l.rollouts[id] != nil && !l.expected[id] {
				kept = append(kept, id)
			}
		}
		l.early = kept
	}
}

// forget drops the labels of rollouts that left the table.
func (l *labels) forget(ids []string) {
	for _, id := range ids {
		l.count -= len(l.rollouts[id])
		delete(l.rollouts, id)
		delete(l.expected, id)
	}
}

// of gives the labels of a rollout, by turn and source.
func (l *labels) of(id string) []forager.Annotation {
	var list []forager.Annotation
	for _, a := range l.rollouts[id] {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b forager.Annotation) int {
		return cmp.Or(cmp.Compare(a.Turn, b.Turn), cmp.Compare(a.Source, b.Source))
	})
	return list
}
