package forager

import "fmt"

// Version counts published policies of a run, from 0 for the warm start. It
// never decreases.
type Version uint64

// Credit is permission to roll out one group. Credits are the staleness bound:
// the learner issues at most (version+1+lag)·B + returned of them, B being the
// groups of one step, so that no group in order is more than lag versions old,
// however many actors there are.
type Credit struct {
	Run       string  `json:"run"`
	Index     uint64  `json:"index"` // 0, 1, 2, ...; unique in the run, also the group id
	TaskID    string  `json:"task_id"`
	Seed      uint64  `json:"seed"` // with Sample it fixes every random choice of a rollout
	GroupSize int     `json:"group_size"`
	Version   Version `json:"version"` // policy version at issue
	Epoch     uint64  `json:"epoch"`   // learner epoch (fencing token) at issue

	// Trace is the last place known in the trace of the credit's life.
	Trace Trace `json:"-"`
}

// MaxGroupSize bounds the rollouts of one group.
const MaxGroupSize = 4096

// Validate reports with ErrSchema a credit that cannot be played in a run: one of
// a program with other ideas, or no credit at all.
func (c *Credit) Validate(run string) error {
	switch {
	case c.Run != run:
		return fmt.Errorf("credit %d is of run %q, not %q: %w", c.Index, c.Run, run, ErrSchema)
	case c.TaskID == "":
		return fmt.Errorf("credit %d has no task: %w", c.Index, ErrSchema)
	case c.GroupSize < 1 || c.GroupSize > MaxGroupSize:
		return fmt.Errorf("credit %d is for %d rollouts, want 1 to %d: %w", c.Index, c.GroupSize, MaxGroupSize, ErrSchema)
	}
	return nil
}
