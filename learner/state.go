package learner

import (
	"fmt"
	"slices"
	"time"

	"github.com/forager-rl/forager"
)

// State is what a checkpoint holds besides weights and optimiser moments.
type State struct {
	Run       string          `json:"run"`
	Step      uint64          `json:"step"`    // steps done
	Version   forager.Version `json:"version"` // of the current weights
	Budget    Budget          `json:"budget"`
	Consumed  []uint64        `json:"consumed"` // groups this state has used up; replay may forget them once it is durable
	Elapsed   time.Duration   `json:"elapsed"`  // training time so far
	NonFinite uint64          `json:"non_finite"`
	Trained   uint64          `json:"trained_tokens"`    // tokens that went through updates
	RolledOut uint64          `json:"rolled_out_tokens"` // tokens of every rollout sampled

	// Metrics is what is known of the last step when its checkpoint is made, for
	// a reporter that did not live to hear of it.
	Metrics StepMetrics `json:"metrics"`
}

// Validate reports a state that cannot be resumed by a run.
func (s *State) Validate(run string) error {
	if s.Run != run {
		return forager.WithHint(fmt.Errorf("checkpoint belongs to run %q, this is run %q", s.Run, run), "resume it in its own run directory")
	}
	return s.Budget.Validate()
}

// consume notes that a group is used up. Replay may offer one again after its
// restart, so that it can come twice.
func (s *State) consume(index uint64) {
	if !slices.Contains(s.Consumed, index) {
		s.Consumed = append(s.Consumed, index)
	}
}

func (s *State) clone() State {
	c := *s
	c.Budget = s.Budget.clone()
	c.Consumed = slices.Clone(s.Consumed)
	return c
}
