package forager

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
}
