package rewardsrv

import (
	"math/rand/v2"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Bounds of what pairs are drawn from.
const (
	pairTasks = 1024 // tasks, the one unused for longest is forgotten first
	pairSteps = 16   // distinct steps of a task
)

// drawn is a step in the pool.
type drawn struct {
	key  string
	step rubric.Step
}

// pool keeps some distinct steps of each task, to pair new ones with. A step is
// paired once: whoever takes it again gets the same partner, and so the same
// label. It belongs to one goroutine.
type pool struct {
	rng   *rand.Rand
	tasks *simplelru.LRU[string, *taskSteps]
}

// taskSteps is a uniform sample of the distinct steps of one task (Vitter 1985,
// "Random sampling with a reservoir", algorithm R).
type taskSteps struct {
	seen     int // distinct steps
	kept     []drawn
	partners map[string]drawn // by the key of a step that was paired; bounded like kept
	order    []string         // of partners, oldest first
}

func newPool(rng *rand.Rand) *pool {
	tasks, err := simplelru.NewLRU[string, *taskSteps](pairTasks, nil)
	if err != nil {
		panic(err) // the size is a constant above 0
	}
	return &pool{rng: rng, tasks: tasks}
}

// partner gives an earlier step of the same task that differs from this one; ok
// is false for the first step of a task.
func (p *pool) partner(d forager.TurnDigest) (other drawn, ok bool) {
	task, known := p.tasks.Get(d.TaskID)
	if !known {
		task = &taskSteps{partners: map[string]drawn{}}
		p.tasks.Add(d.TaskID, task)
	}
	key := stepKey(d)
	if other, ok := task.partners[key]; ok {
		return other, true
	}
	for _, k := range task.kept {
		if k.key == key { // the first step of its task, which has no partner
			return drawn{}, false
		}
	}
	if len(task.kept) > 0 {
		other, ok = task.kept[p.rng.IntN(len(task.kept))], true
		task.partners[key] = other
		if task.order = append(task.order, key); len(task.order) > 4*pairSteps {
			delete(task.partners, task.order[0])
			task.order = task.order[1:]
		}
	}
	task.keep(p.rng, drawn{key, compactStep(step(d))})
	return other, ok
}

func (t *taskSteps) keep(rng *rand.Rand, d drawn) {
	t.seen++
	if len(t.kept) < pairSteps {
		t.kept = append(t.kept, d)
	} else if i := rng.IntN(t.seen); i < pairSteps {
		t.kept[i] = d
	}
}
