package batch

import (
	"fmt"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// annotationTable is the schema "annotation": one row per label.
var annotationTable = table[forager.Annotation]{name: "annotation", version: 1, columns: []column[forager.Annotation]{
	must(text("rollout_id", func(a *forager.Annotation) *string { return &a.RolloutID })),
	must(signed("turn", func(a *forager.Annotation) *int { return &a.Turn })),
	must(text("source", func(a *forager.Annotation) *string { return &a.Source })),
	must(optionalFloat("value", func(a *forager.Annotation) **float64 { return &a.Value })),
	text("key", func(a *forager.Annotation) *string { return &a.Key }),
	text("judge", func(a *forager.Annotation) *string { return &a.Judge }),
	text("rubric", func(a *forager.Annotation) *string { return &a.Rubric }),
	text("rationale", func(a *forager.Annotation) *string { return &a.Rationale }),
	duration("latency", func(a *forager.Annotation) *time.Duration { return &a.Latency }),
	moment("time", func(a *forager.Annotation) *time.Time { return &a.Time }),
	text("model", func(a *forager.Annotation) *string { return &a.Judgement.Model }),
	text("endpoint", func(a *forager.Annotation) *string { return &a.Judgement.Endpoint }),
	text("prompt_digest", func(a *forager.Annotation) *string { return &a.Judgement.PromptDigest }),
	text("answer", func(a *forager.Annotation) *string { return &a.Judgement.Answer }),
	signed("prompt_tokens", func(a *forager.Annotation) *int { return &a.Judgement.PromptTokens }),
	signed("completion_tokens", func(a *forager.Annotation) *int { return &a.Judgement.CompletionTokens }),
	text("task_id", func(a *forager.Annotation) *string { return &a.Judgement.TaskID }),
	text("question", func(a *forager.Annotation) *string { return &a.Judgement.Question }),
	text("query", func(a *forager.Annotation) *string { return &a.Judgement.Query }),
	text("observation", func(a *forager.Annotation) *string { return &a.Judgement.Observation }),
	text("other_query", func(a *forager.Annotation) *string { return &a.Judgement.OtherQuery }),
	text("other_observation", func(a *forager.Annotation) *string { return &a.Judgement.OtherObservation }),
}}

// EncodeAnnotations gives labels as one Arrow IPC stream. A nil value stays
// nil. It refuses what DecodeAnnotations would refuse.
func EncodeAnnotations(labels []forager.Annotation) ([]byte, error) {
	return encodeRows(memory.DefaultAllocator, annotationTable, labels, checkAnnotation)
}

// DecodeAnnotations reads what EncodeAnnotations wrote, in the same order, under
// the rules of DecodeGroups. A label without rollout id or source, or of a turn
// below forager.WholeRollout, is corrupt.
func DecodeAnnotations(data []byte) ([]forager.Annotation, error) {
	return decodeRows(memory.DefaultAllocator, annotationTable, newMessages(data), checkAnnotation)
}

func checkAnnotation(a *forager.Annotation) error {
	if a.RolloutID == "" || a.Source == "" || a.Turn < forager.WholeRollout {
		return fmt.Errorf("annotation of rollout %q, turn %d, from source %q", a.RolloutID, a.Turn, a.Source)
	}
	return nil
}
