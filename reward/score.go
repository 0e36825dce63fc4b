package reward

import (
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// Names of the reward sources that Score gives.
const (
	SourceEM             = "em"
	SourceF1             = "f1"
	SourceSubEM          = "sub_em"
	SourceFormat         = "format"
	SourceEvidenceRecall = "evidence_recall"
	// SourceValid is 1 when the response keeps the tag protocol, else 0.
	SourceValid = "valid"
)

// FormatConfig is the knobs of the format reward of Search-R1 v0.3.
type FormatConfig struct {
	// Structure is the reward of a valid response with a wrong or missing
	// answer, and what an invalid one with a right answer loses. 0 to 1.
	Structure float64 `mapstructure:"structure"`
	// Final is the reward of an invalid response that gave a wrong answer. 0 to 1.
	Final float64 `mapstructure:"final"`
	// Retrieval is added to Structure when a gold answer appears in an
	// observation. 0 to 1.
	Retrieval float64 `mapstructure:"retrieval"`
}

// DefaultFormatConfig is the published setting: 0.2, 0.1 and 0.
func DefaultFormatConfig() FormatConfig {
	return FormatConfig{Structure: 0.2, Final: 0.1, Retrieval: 0}
}

// Validate reports the first knob out of range, or nil.
func (c FormatConfig) Validate() error {
	for _, k := range []struct {
		name  string
		value float64
	}{{"structure", c.Structure}, {"final", c.Final}, {"retrieval", c.Retrieval}, {"structure + retrieval", c.Structure + c.Retrieval}} {
		if math.IsNaN(k.value) || k.value < 0 || k.value > 1 {
			return fmt.Errorf("format reward: %s is %v, want 0 to 1", k.name, k.value)
		}
	}
	return nil
}

// Outcome is what the format reward looks at.
type Outcome struct {
	Correct   bool // the answer is an exact match
	Valid     bool // the response keeps the tag protocol
	Retrieved bool // a gold answer appears in an observation
	Answered  bool // an answer tag was closed
}

// Format is the format reward of Search-R1 v0.3, in [0, 1]:
//
//	                    valid                    invalid
//	right answer        1                        1 - structure
//	wrong answer        structure (+ retrieval)  final
//	no answer           structure (+ retrieval)  0
func Format(o Outcome, c FormatConfig) float64 {
	switch {
	case o.Answered && o.Correct && o.Valid:
		return 1
	case o.Answered && o.Correct:
		return 1 - c.Structure
	case o.Valid && o.Retrieved:
		return c.Structure + c.Retrieval
	case o.Valid:
		return c.Structure
	case o.Answered:
		return c.Final
	}
	return 0
}

// Input is what scoring needs beyond task and rollout.
type Input struct {
	// Valid says whether the response keeps the tag protocol (package search
	// knows).
	Valid bool
	// Response is the policy's own text, without prompt and observations. It is
	// used to count answer tags; empty means one at most.
	Response string
	// Passages are all passages shown in any observation. Without them evidence
	// recall goes by the turns' document ids and nothing counts as retrieved.
	Passages []forager.Passage
	// Format holds the knobs of the format reward.
	Format FormatConfig
}

// maxAnswerTags is verl's bound: a response that opens more answer tags than
// this is fishing for a match and gets a quarter of its answer scores.
const maxAnswerTags = 10

// Score gives the default set of rule rewards by source name, each in [0, 1].
// A source that does not apply to the task (evidence recall without gold
// evidence) is absent, which differs from 0.
//
// The answer scored is r.Answer: the last one of the response. A response with
// more than ten answer tags gets a quarter of em, f1, sub_em and of a correct
// format reward.
func Score(task forager.Task, r forager.Rollout, in Input) map[string]float64 {
	keep := 1.0
	if _, tags, _ := LastAnswer(in.Response); tags > maxAnswerTags {
		keep = 0.25
	}
	em := ExactMatch(r.Answer, task.Answers)
	format := Format(Outcome{
		Correct:   em == 1,
		Valid:     in.Valid,
		Retrieved: RetrievalHit(task.Answers, in.Passages),
		Answered:  r.Answer != "" || r.Finish == forager.FinishAnswer,
	}, in.Format)
	if em == 1 {
		format *= keep
	}
	scores := map[string]float64{
		SourceEM:     keep * em,
		SourceF1:     keep * F1(r.Answer, task.Answers),
		SourceSubEM:  keep * SubEM(r.Answer, task.Answers),
		SourceFormat: format,
		SourceValid:  0,
	}
	if in.Valid {
		scores[SourceValid] = 1
	}
	ids, titles := observed(r, in.Passages)
	if recall, known := EvidenceRecall(task, ids, titles); known {
		scores[SourceEvidenceRecall] = recall
	}
	return scores
}

// observed lists the ids and titles of everything that was shown.
func observed(r forager.Rollout, passages []forager.Passage) (ids, titles []string) {
	for _, t := range r.Turns {
		ids = append(ids, t.DocIDs...)
	}
	for _, p := range passages {
		ids = append(ids, p.ID)
		titles = append(titles, p.Title)
	}
	return ids, titles
}
