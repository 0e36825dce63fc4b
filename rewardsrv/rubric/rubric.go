package rubric

import (
	"errors"

	"github.com/forager-rl/forager"
)

// ErrUnusable means that a judge answered, but not with a verdict.
var ErrUnusable = errors.New("judge gave no usable label")

// Unit is what one verdict is about.
type Unit string

// The units.
const (
	Turn    Unit = "turn"    // one search step
	Pair    Unit = "pair"    // two steps of the same question
	Rollout Unit = "rollout" // a rollout's final answer and its queries
)

// The kinds of rubrics.
const (
	Helpfulness = "helpfulness" // one label; ONI's retrieval and classification (arXiv 2410.23022)
	Preference  = "preference"  // the better of two steps, or a tie; ONI's ranking, after Motif (arXiv 2310.00166)
	Nuggets     = "nuggets"     // one label per atomic fact; Search-Gen-V
	Principles  = "principles"  // points per principle; PPR, RewardAnything
	ToolCalls   = "tool_calls"  // one label per aspect of a call; Fathom-DeepResearch
)

// Step is one search of an agent.
type Step struct {
	Query       string
	Passages    []forager.Passage
	Observation string   // what the policy was shown; judged where Passages is empty
	Earlier     []string // queries of the same rollout before this one, oldest first
}

// Item is what one verdict is asked for.
type Item struct {
	Key      string       // label key; no part of the prompt
	Task     forager.Task // with gold answers, which only [PromptOptions.ShowGold] shows to a judge
	Question string
	Step
	Other  *Step  // the other step of a pair, else nil
	Answer string // the rollout's final answer, for the unit rollout
}

// Verdict is what a judge said of one item.
type Verdict struct {
	// Value is in [0, 1]. Of a pair it is 1 where the item's own step is
	// better, 0 where the other is, 0.5 for a tie.
	Value     float64
	Rationale string // one line, at most 2000 bytes; may name gold answers, see Redacted
	// Details are the parts of the verdict: "label": "helpful",
	// "fact 2": "partial_support", "<principle>": "3/5".
	Details map[string]string
}

// Rubric is a judge's task. It never changes and is safe for concurrent use.
type Rubric struct {
	Name   string
	Kind   string // Helpfulness, Preference, Nuggets, Principles or ToolCalls
	Source string // the file that it was read from, or "built-in:" and its name

	content content
	version string
}

// content is what the version is a digest of.
type content struct {
	Name         string
	Kind         string
	Unit         Unit
	History      bool
	Facts        string      `json:",omitempty"` // of nuggets: factsAnswer or factsHops
	Instructions string      // what to decide, in the author's words
	Labels       []label     `json:",omitempty"` // of helpfulness, preference, nuggets
	Aspects      []aspect    `json:",omitempty"` // of tool_calls
	Principles   []principle `json:",omitempty"` // of principles
}

// Facts of a nuggets rubric.
const (
	factsAnswer = "answer" // short form: the accepted answer is the one fact
	factsHops   = "hops"   // long form: each hop of the task's decomposition is one
)

// label is one of the outcomes that a judge chooses from.
type label struct {
	Name  string
	Value float64
	When  string // completes "choose it when"
}

// aspect is one decision about a tool call.
type aspect struct {
	Name   string
	Labels []label
}

// principle is one thing that points are given for.
type principle struct {
	Name   string
	Max    int // points are 0 to Max
	Weight float64
	Ask    string
}

// Version is "sha256:" and a digest of the rubric's content and of the text
// that this package puts around it. Comments and layout of the file do not
// count, so that correcting them costs no label.
func (r *Rubric) Version() string { return r.version }

// Unit is what one verdict is about.
func (r *Rubric) Unit() Unit { return r.content.Unit }

// History says whether the judge reads the earlier queries of the rollout, as
// it always does for tool_calls and whole rollouts; the label key must then
// include them.
func (r *Rubric) History() bool { return r.content.History }
