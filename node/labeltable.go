package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rewardsrv"
)

const (
	// maxTableLabels bounds half of a label table: about 100 bytes each.
	maxTableLabels = 1 << 18
	// maxAuthorities bounds the judges and rubrics whose labels are looked for.
	maxAuthorities = 4
)

// labelTable is the labels of one source by key, ONI's retrieval: what was
// judged once counts for every turn that searched and found the same, also for
// those that the reward server never heard of. It is safe for concurrent use.
type labelTable struct {
	source string

	mu          sync.Mutex
	authorities []authority // newest first
	young, old  map[string]tableLabel
	limit       int // of young; then it becomes old, and old is forgotten
}

// authority is who judged by what rubric: parts of the key.
type authority struct{ judge, rubric string }

type tableLabel struct {
	value float64
	time  time.Time
}

func newLabelTable(source string) *labelTable {
	return &labelTable{source: source, young: map[string]tableLabel{}, limit: maxTableLabels}
}

// follow takes in the labels of the run until ctx is done.
func (t *labelTable) follow(ctx context.Context, b *bus.Bus, u unreadable) error {
	return annotations{b, u}.Follow(ctx, func(list []forager.Annotation) error {
		for i := range list {
			t.add(&list[i])
		}
		return nil
	})
}

func (t *labelTable) add(a *forager.Annotation) {
	if a.Source != t.source || a.Value == nil || a.Key == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	by := authority{a.Judge, a.Rubric}
	if i := slices.Index(t.authorities, by); i != 0 {
		if i > 0 {
			t.authorities = slices.Delete(t.authorities, i, i+1)
		}
		t.authorities = slices.Insert(t.authorities, 0, by)
		t.authorities = t.authorities[:min(len(t.authorities), maxAuthorities)]
	}
	if len(t.young) >= t.limit {
		t.young, t.old = map[string]tableLabel{}, t.young
	}
	t.young[a.Key] = tableLabel{*a.Value, a.Time}
}

// find gives the label of a step that some turn has had. earlier is the queries
// of the rollout before it, oldest first.
func (t *labelTable) find(task string, turn forager.Turn, earlier []string) (forager.Annotation, bool) {
	if turn.ObservationKey == "" {
		return forager.Annotation{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, by := range t.authorities {
		for _, queries := range [][]string{nil, earlier} { // rubrics with a history look at the queries before
			key := rewardsrv.TurnKey(by.rubric, by.judge, task, turn.Text, turn.ObservationKey, queries)
			label, ok := t.young[key]
			if !ok {
				label, ok = t.old[key]
			}
			if ok {
				value := label.value
				return forager.Annotation{Value: &value, Key: key, Judge: by.judge, Rubric: by.rubric, Time: label.time}, true
			}
		}
	}
	return forager.Annotation{}, false
}
