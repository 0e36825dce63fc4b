package rewardsrv

import (
	"math/rand/v2"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// Bounds of what pairs are drawn from.
const (
	pairTasks    = 1024     // the one unused for longest is forgotten first
	pairSteps    = 16       // distinct steps of a task to draw from
	pairPartners = 64       // steps of a task whose partner is remembered
	pairBytes    = 32 << 20 // text of all
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
	bytes int // of all tasks
}

// taskSteps is a uniform sample of the distinct steps of one task (Vitter 1985,
// "Random sampling with a reservoir", algorithm R).
type taskSteps struct {
	seen     int // distinct steps
	kept     []drawn
	partners map[string]drawn // by the key of a step that was paired
	order    []string         // of partners, oldest first
	bytes    int              // about: text of kept and partners, shared or not
}

func newPool(rng *rand.Rand) *pool {
	p := &pool{rng: rng}
	tasks, err := simplelru.NewLRU(pairTasks, func(_ string, t *taskSteps) { p.bytes -= t.bytes })
	if err != nil {
		panic(err) // the size is a constant above 0
	}
	p.tasks = tasks
	return p
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
	before := task.bytes
	if len(task.kept) > 0 {
		other, ok = task.kept[p.rng.IntN(len(task.kept))], true
		task.remember(key, other)
	}
	task.keep(p.rng, drawn{key, compactStep(step(d))})
	for p.bytes += task.bytes - before; p.bytes > pairBytes && p.tasks.Len() > 1; {
		p.tasks.RemoveOldest()
	}
	return other, ok
}

func (t *taskSteps) remember(key string, other drawn) {
	t.partners[key] = other
	t.bytes += stepBytes(other.step)
	if t.order = append(t.order, key); len(t.order) > pairPartners {
		t.bytes -= stepBytes(t.partners[t.order[0]].step)
		delete(t.partners, t.order[0])
		t.order = t.order[1:]
	}
}

func (t *taskSteps) keep(rng *rand.Rand, d drawn) {
	t.seen++
	if len(t.kept) < pairSteps {
		t.kept = append(t.kept, d)
		t.bytes += stepBytes(d.step)
	} else if i := rng.IntN(t.seen); i < pairSteps {
		t.bytes += stepBytes(d.step) - stepBytes(t.kept[i].step)
		t.kept[i] = d
	}
}
