package forager

import (
	"fmt"
	"time"
)

// Span is the half-open range [Start, End) of token positions in a rollout.
type Span struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}

// Len is the number of positions in the span.
func (s Span) Len() int { return int(s.End - s.Start) }

// VersionSpan says which policy version sampled the tokens of a span.
type VersionSpan struct {
	Span
	Version Version `json:"version"`
}

// TurnKind names what the policy did in a turn.
type TurnKind string

// The kinds of turns. An Invalid turn held no complete action tag.
const (
	TurnSearch  TurnKind = "search"
	TurnAnswer  TurnKind = "answer"
	TurnInvalid TurnKind = "invalid"
)

// Finish says why a rollout ended.
type Finish string

// The reasons to end a rollout.
const (
	FinishAnswer    Finish = "answer"    // an answer tag was closed
	FinishTurns     Finish = "turns"     // the forced final turn gave no answer
	FinishLength    Finish = "length"    // the token budget of the episode was used up
	FinishRetriever Finish = "retriever" // the environment failed; such a rollout is not learned from
)

// Turn is one action of the policy and the observation that came back.
type Turn struct {
	Kind        TurnKind  `json:"kind"`
	Text        string    `json:"text"`        // the query, the answer, or the invalid text
	Action      Span      `json:"action"`      // tokens sampled by the policy
	Observation Span      `json:"observation"` // tokens inserted by the environment; empty after an answer
	DocIDs      []string  `json:"doc_ids,omitempty"`
	DocScores   []float64 `json:"doc_scores,omitempty"`
	// ObservationKey identifies what a search brought, see the function of this
	// name; "" on other turns and on rollouts of older actors.
	ObservationKey string        `json:"observation_key,omitempty"`
	Latency        time.Duration `json:"latency"` // of the retriever
}

// Rollout is one episode, token in, token out. Tokens holds prompt, actions and
// observations in order; Logprobs and LossMask have the same length.
type Rollout struct {
	Run      string    `json:"run"`
	ID       string    `json:"id"` // see RolloutID
	TaskID   string    `json:"task_id"`
	Dataset  string    `json:"dataset"`
	Group    uint64    `json:"group"`  // index of the credit
	Sample   int       `json:"sample"` // 0 .. group size - 1
	ParentID string    `json:"parent_id,omitempty"`
	ForkTurn int       `json:"fork_turn,omitempty"` // meaningful only with ParentID
	Actor    string    `json:"actor"`
	Seed     uint64    `json:"seed"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`

	Tokens   []int32       `json:"tokens"`
	Logprobs []float32     `json:"logprobs"`  // natural log under the sampling policy; 0 where LossMask is false
	LossMask []bool        `json:"loss_mask"` // true for tokens that the policy sampled, and for those alone
	Versions []VersionSpan `json:"versions"`  // in order; together they cover exactly the masked tokens

	Turns   []Turn             `json:"turns"`
	Answer  string             `json:"answer"` // "" when none was given
	Finish  Finish             `json:"finish"`
	Rewards map[string]float64 `json:"rewards"` // by source; an absent source is unknown, which differs from 0

	// Annotations are joined when replay is sampled; a rollout on its way from
	// its actor has none.
	Annotations []Annotation `json:"annotations,omitempty"`
}

// RolloutID is the deterministic id of a sample of a credit: a credit that is
// played twice gives the same ids, so that replay keeps one of them.
func RolloutID(run string, credit uint64, sample int) string {
	return fmt.Sprintf("%s-%08d-%03d", run, credit, sample)
}

// Validate reports the first broken promise of the rollout's shape, or nil.
// Whatever arrives from the bus is validated before it is used.
func (r *Rollout) Validate() error {
	n := len(r.Tokens)
	switch {
	case r.ID == "":
		return fmt.Errorf("rollout without id")
	case n == 0:
		return fmt.Errorf("rollout %s has no tokens", r.ID)
	case len(r.Logprobs) != n || len(r.LossMask) != n:
		return fmt.Errorf("rollout %s: %d tokens, %d logprobs, %d mask entries: lengths differ", r.ID, n, len(r.Logprobs), len(r.LossMask))
	}
	covered := 0
	last := int32(0)
	for _, v := range r.Versions {
		if v.Start < last || v.End < v.Start || int(v.End) > n {
			return fmt.Errorf("rollout %s: version span [%d,%d) is out of order or range", r.ID, v.Start, v.End)
		}
		for i := v.Start; i < v.End; i++ {
			if !r.LossMask[i] {
				return fmt.Errorf("rollout %s: version span [%d,%d) covers token %d, which the policy did not sample", r.ID, v.Start, v.End, i)
			}
		}
		covered += v.Len()
		last = v.End
	}
	if m := r.PolicyTokens(); covered != m {
		return fmt.Errorf("rollout %s: version spans cover %d of %d policy tokens", r.ID, covered, m)
	}
	for i, t := range r.Turns {
		for _, s := range []Span{t.Action, t.Observation} {
			if s.Start < 0 || s.End < s.Start || int(s.End) > n {
				return fmt.Errorf("rollout %s: turn %d has span [%d,%d) of %d tokens", r.ID, i, s.Start, s.End, n)
			}
		}
	}
	return nil
}

// PolicyTokens counts the tokens that the policy sampled.
func (r *Rollout) PolicyTokens() int {
	n := 0
	for _, m := range r.LossMask {
		if m {
			n++
		}
	}
	return n
}

// OldestVersion is the lowest policy version that sampled any token of the
// rollout.
func (r *Rollout) OldestVersion() Version {
	if len(r.Versions) == 0 {
		return 0
	}
	oldest := r.Versions[0].Version
	for _, v := range r.Versions[1:] {
		oldest = min(oldest, v.Version)
	}
	return oldest
}

// Searches counts the search turns.
func (r *Rollout) Searches() int {
	n := 0
	for _, t := range r.Turns {
		if t.Kind == TurnSearch {
			n++
		}
	}
	return n
}

// Group is the rollouts of one credit: samples of one task, what GRPO-like
// baselines compare. It travels and is stored whole.
type Group struct {
	Credit   Credit
	Rollouts []Rollout
}
