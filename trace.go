package forager

// Trace is a place in a distributed trace, written as W3C Trace Context
// (https://www.w3.org/TR/trace-context/). It travels beside what it is about, in
// the headers of a message, never within. The zero value means that nobody traces
// it. A pointer to it is a carrier for OpenTelemetry's propagators.
type Trace struct {
	Parent string `json:"traceparent"`
	State  string `json:"tracestate,omitempty"`
}

// The headers of W3C Trace Context.
const (
	traceParent = "traceparent"
	traceState  = "tracestate"
)

// Get gives the value of a header, "" for one that is not of Trace Context.
func (t *Trace) Get(header string) string {
	switch header {
	case traceParent:
		return t.Parent
	case traceState:
		return t.State
	}
	return ""
}

// Set gives a header of Trace Context a value; others are passed over.
func (t *Trace) Set(header, value string) {
	switch header {
	case traceParent:
		t.Parent = value
	case traceState:
		t.State = value
	}
}

// Keys lists the headers of Trace Context.
func (*Trace) Keys() []string { return []string{traceParent, traceState} }

// Names of span attributes. What tasks, policies and judges say is in none of
// them: traces leave the cluster.
const (
	AttributeRun     = "forager.run"
	AttributeGroup   = "forager.group" // index of the credit
	AttributeTask    = "forager.task"  // id
	AttributeSize    = "forager.group.size"
	AttributeSample  = "forager.sample"         // of the group, from 0
	AttributeTurn    = "forager.turn"           // of the rollout, from 0
	AttributeKind    = "forager.turn.kind"      // a TurnKind
	AttributeFinish  = "forager.finish"         // a Finish
	AttributeTokens  = "forager.tokens"         // of the whole rollout, or sampled in a turn
	AttributeActor   = "forager.actor"          // name
	AttributeVersion = "forager.policy.version" // at issue of a credit; of the learner; published
	AttributeStep    = "forager.learner.step"   // from 1
	AttributeEpoch   = "forager.learner.epoch"  // of the lease
	AttributeGroups  = "forager.groups"         // number of them
	AttributeBytes   = "forager.bytes"          // of a batch
	AttributeSource  = "forager.reward.source"
	AttributeJudge   = "forager.judge"   // as in Annotation.Judge
	AttributeRubric  = "forager.rubric"  // version
	AttributeOutcome = "forager.outcome" // of a call or an attempt
)
