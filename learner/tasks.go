package learner

import (
	"errors"
	"math/rand/v2"
)

// TaskStream says which task a credit plays and with which seed. It is a pure
// function of the index, so that a credit issued twice is the same credit.
type TaskStream interface {
	At(index uint64) (taskID string, seed uint64)
}

// Tasks goes through all tasks epoch by epoch, each in its own order.
type Tasks struct {
	ids   []string
	seed  uint64
	epoch uint64
	order []int // of epoch
}

// NewTasks makes the stream of the given tasks; seed is the run's. It is not
// safe for concurrent use.
func NewTasks(ids []string, seed uint64) (*Tasks, error) {
	if len(ids) == 0 {
		return nil, errors.New("no tasks to train on")
	}
	t := &Tasks{ids: ids, seed: seed}
	t.order = t.shuffle(0)
	return t, nil
}

// At gives the task of a credit and the seed of its rollouts.
func (t *Tasks) At(index uint64) (taskID string, seed uint64) {
	n := uint64(len(t.ids))
	if epoch := index / n; epoch != t.epoch {
		t.epoch, t.order = epoch, t.shuffle(epoch)
	}
	return t.ids[t.order[index%n]], random(t.seed, drawRollout, index).Uint64()
}

func (t *Tasks) shuffle(epoch uint64) []int {
	return random(t.seed, drawTasks, epoch).Perm(len(t.ids))
}

// The purposes for which random numbers are drawn. Numbers for one purpose do
// not shift when another draws more.
const (
	drawTasks uint64 = iota + 1
	drawRollout
	drawShuffle
	drawMiniBatches
)

// random gives the generator of draw number n for a purpose.
func random(seed, purpose, n uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed+purpose<<56, n))
}
