package rundir

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// place is which checkpoint of a run one is. Each learner writes under its own
// epoch, so that one which was believed dead and comes back overwrites nothing
// of its successor's. Epoch 0 is that of runs from before epochs were kept.
type place struct {
	epoch uint64 // of the learner that wrote it
	step  uint64
}

// comparePlaces orders as history went: a later learner's checkpoints come after
// those of an earlier one, whatever their steps.
func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.step, b.step))
}

// name is that of the folder.
func (p place) name() string {
	if p.epoch == 0 {
		return fmt.Sprintf("step-%08d", p.step)
	}
	return fmt.Sprintf("step-%08d-e%d", p.step, p.epoch)
}

// parsePlace is the reverse of name.
func parsePlace(name string) (place, bool) {
	digits, ok := strings.CutPrefix(name, "step-")
	if !ok {
		return place{}, false
	}
	digits, epoch, _ := strings.Cut(digits, "-e")
	var p place
	p.step, _ = strconv.ParseUint(digits, 10, 64)
	p.epoch, _ = strconv.ParseUint(epoch, 10, 64)
	return p, p.name() == name // whatever was no number does not come out the same
}

// superfluous is what of the places, in order, a save made superfluous, when
// keep are to be kept. Places of later epochs are another learner's business.
func superfluous(places []place, saved place, keep int) []place {
	var drop []place
	next := saved.step + 1
	for i := len(places) - 1; i >= 0; i-- {
		p := places[i]
		switch {
		case p.epoch > saved.epoch:
		case comparePlaces(p, saved) > 0, p.step >= next, keep == 0:
			drop = append(drop, p) // of a history that the run has left, or old
		default:
			keep--
			next = p.step
		}
	}
	return drop
}
