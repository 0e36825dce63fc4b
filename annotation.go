package forager

import "time"

// TurnDigest is what the reward server needs to label one turn, small enough
// to be dropped and repeated at will.
type TurnDigest struct {
	Run       string    `json:"run"`
	RolloutID string    `json:"rollout_id"`
	Turn      int       `json:"turn"` // index in Rollout.Turns
	TaskID    string    `json:"task_id"`
	Question  string    `json:"question"`
	Query     string    `json:"query"`
	Passages  []Passage `json:"passages"`
	Answer    string    `json:"answer"` // the rollout's final answer, "" when none
	Time      time.Time `json:"time"`
}

// Annotation is one label for one turn, or for a whole rollout when Turn is
// WholeRollout, from one reward source.
type Annotation struct {
	RolloutID string        `json:"rollout_id"`
	Turn      int           `json:"turn"`
	Source    string        `json:"source"`          // name of the reward source, such as "helpful"
	Value     *float64      `json:"value,omitempty"` // nil: not labelled, which differs from 0
	Key       string        `json:"key"`             // label key: equal keys are judged once
	Judge     string        `json:"judge"`
	Rubric    string        `json:"rubric"` // rubric version, a digest of its text
	Rationale string        `json:"rationale,omitempty"`
	Latency   time.Duration `json:"latency"`
	Time      time.Time     `json:"time"`
}

// WholeRollout is the Turn of an annotation that is about the whole rollout.
const WholeRollout = -1
