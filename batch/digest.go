package batch

import (
	"fmt"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// digestTable is the schema "digest": one row per turn digest.
var digestTable = table[forager.TurnDigest]{name: "digest", version: 1, columns: []column[forager.TurnDigest]{
	must(text("run", func(d *forager.TurnDigest) *string { return &d.Run })),
	must(text("rollout_id", func(d *forager.TurnDigest) *string { return &d.RolloutID })),
	must(signed("turn", func(d *forager.TurnDigest) *int { return &d.Turn })),
	text("task_id", func(d *forager.TurnDigest) *string { return &d.TaskID }),
	text("question", func(d *forager.TurnDigest) *string { return &d.Question }),
	text("query", func(d *forager.TurnDigest) *string { return &d.Query }),
	structs("passages", passageColumns, func(d *forager.TurnDigest) *[]forager.Passage { return &d.Passages }),
	text("observation", func(d *forager.TurnDigest) *string { return &d.Observation }),
	texts("earlier", func(d *forager.TurnDigest) *[]string { return &d.Earlier }),
	text("answer", func(d *forager.TurnDigest) *string { return &d.Answer }),
	moment("time", func(d *forager.TurnDigest) *time.Time { return &d.Time }),
}}

var passageColumns = []column[forager.Passage]{
	text("id", func(p *forager.Passage) *string { return &p.ID }),
	text("title", func(p *forager.Passage) *string { return &p.Title }),
	text("text", func(p *forager.Passage) *string { return &p.Text }),
	float("score", func(p *forager.Passage) *float64 { return &p.Score }),
}

// EncodeDigests gives turn digests as one Arrow IPC stream. It refuses what
// DecodeDigests would refuse.
func EncodeDigests(digests []forager.TurnDigest) ([]byte, error) {
	return encodeRows(memory.DefaultAllocator, digestTable, digests, checkDigest)
}

// DecodeDigests reads what EncodeDigests wrote, in the same order, under the
// rules of DecodeGroups. A digest without rollout id or turn is corrupt.
func DecodeDigests(data []byte) ([]forager.TurnDigest, error) {
	return decodeRows(memory.DefaultAllocator, digestTable, newMessages(data), checkDigest)
}

func checkDigest(d *forager.TurnDigest) error {
	if d.RolloutID == "" || d.Turn < 0 {
		return fmt.Errorf("digest of rollout %q, turn %d", d.RolloutID, d.Turn)
	}
	return nil
}
