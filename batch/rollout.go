package batch

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// rolloutRow is a rollout as it travels: together with its credit, with
// log-probabilities of policy tokens only, and with rewards in order of source.
type rolloutRow struct {
	credit   forager.Credit
	rollout  forager.Rollout
	logprobs []float32
	rewards  []sourceReward
}

type sourceReward struct {
	source string
	value  float64
}

// rolloutTable is the schema "rollout": one row per rollout, the rollouts of a
// group in consecutive rows. Run, group and task id stand for those of the
// credit as well.
var rolloutTable = table[rolloutRow]{name: "rollout", version: 1, columns: []column[rolloutRow]{
	must(text("run", func(r *rolloutRow) *string { return &r.rollout.Run })),
	must(text("rollout_id", func(r *rolloutRow) *string { return &r.rollout.ID })),
	must(text("task_id", func(r *rolloutRow) *string { return &r.rollout.TaskID })),
	text("dataset", func(r *rolloutRow) *string { return &r.rollout.Dataset }),
	must(unsigned("group", func(r *rolloutRow) *uint64 { return &r.rollout.Group })),
	signed("sample", func(r *rolloutRow) *int { return &r.rollout.Sample }),
	unsigned("group_seed", func(r *rolloutRow) *uint64 { return &r.credit.Seed }),
	signed("group_size", func(r *rolloutRow) *int { return &r.credit.GroupSize }),
	unsigned("issued_version", func(r *rolloutRow) *forager.Version { return &r.credit.Version }),
	unsigned("issued_epoch", func(r *rolloutRow) *uint64 { return &r.credit.Epoch }),
	nullable(text("parent_id", func(r *rolloutRow) *string { return &r.rollout.ParentID }), noParent),
	nullable(signed("fork_turn", func(r *rolloutRow) *int { return &r.rollout.ForkTurn }), noParent),
	text("actor", func(r *rolloutRow) *string { return &r.rollout.Actor }),
	unsigned("seed", func(r *rolloutRow) *uint64 { return &r.rollout.Seed }),
	moment("start", func(r *rolloutRow) *time.Time { return &r.rollout.Start }),
	moment("end", func(r *rolloutRow) *time.Time { return &r.rollout.End }),
	must(positions("tokens", func(r *rolloutRow) *[]int32 { return &r.rollout.Tokens })),
	must(float32s("logprobs", func(r *rolloutRow) *[]float32 { return &r.logprobs })),
	must(bools("loss_mask", func(r *rolloutRow) *[]bool { return &r.rollout.LossMask })),
	must(structs("versions", versionColumns, func(r *rolloutRow) *[]forager.VersionSpan { return &r.rollout.Versions })),
	structs("turns", turnColumns, func(r *rolloutRow) *[]forager.Turn { return &r.rollout.Turns }),
	text("answer", func(r *rolloutRow) *string { return &r.rollout.Answer }),
	text("finish", func(r *rolloutRow) *forager.Finish { return &r.rollout.Finish }),
	structs("rewards", rewardColumns, func(r *rolloutRow) *[]sourceReward { return &r.rewards }),
	structs("annotations", annotationTable.columns, func(r *rolloutRow) *[]forager.Annotation { return &r.rollout.Annotations }),
}}

var versionColumns = []column[forager.VersionSpan]{
	must(position("start", func(v *forager.VersionSpan) *int32 { return &v.Start })),
	must(position("end", func(v *forager.VersionSpan) *int32 { return &v.End })),
	must(unsigned("version", func(v *forager.VersionSpan) *forager.Version { return &v.Version })),
}

var turnColumns = []column[forager.Turn]{
	text("kind", func(t *forager.Turn) *forager.TurnKind { return &t.Kind }),
	text("text", func(t *forager.Turn) *string { return &t.Text }),
	position("action_start", func(t *forager.Turn) *int32 { return &t.Action.Start }),
	position("action_end", func(t *forager.Turn) *int32 { return &t.Action.End }),
	position("observation_start", func(t *forager.Turn) *int32 { return &t.Observation.Start }),
	position("observation_end", func(t *forager.Turn) *int32 { return &t.Observation.End }),
	texts("doc_ids", func(t *forager.Turn) *[]string { return &t.DocIDs }),
	float64s("doc_scores", func(t *forager.Turn) *[]float64 { return &t.DocScores }),
	duration("latency", func(t *forager.Turn) *time.Duration { return &t.Latency }),
	text("observation_key", func(t *forager.Turn) *string { return &t.ObservationKey }),
}

var rewardColumns = []column[sourceReward]{
	must(text("source", func(s *sourceReward) *string { return &s.source })),
	must(float("value", func(s *sourceReward) *float64 { return &s.value })),
}

func noParent(r *rolloutRow) bool { return r.rollout.ParentID == "" }

// EncodeGroups gives whole groups with their credits as one Arrow IPC stream.
// Rollouts from actors have no annotations yet; archived ones carry those that
// were known. It refuses what DecodeGroups would refuse:
// invalid rollouts, a group without rollouts, a rollout of another group, and
// two neighbouring groups of one credit, which would come back as one.
func EncodeGroups(groups []forager.Group) ([]byte, error) {
	return encodeGroups(memory.DefaultAllocator, groups)
}

func encodeGroups(mem memory.Allocator, groups []forager.Group) ([]byte, error) {
	if err := checkGroups(groups); err != nil {
		return nil, fmt.Errorf("encode rollout: %w", err)
	}
	return rolloutTable.encode(mem, rolloutRows(groups))
}

// DecodeGroups reads what EncodeGroups wrote, in the same order. Every rollout
// is valid (Rollout.Validate) and of the run, group and task of its credit.
// Times are in UTC, to the microsecond; empty lists and maps are nil. Errors
// wrap forager.ErrSchema or forager.ErrCorrupt, and then nothing is returned.
func DecodeGroups(data []byte) ([]forager.Group, error) {
	return decodeGroups(memory.DefaultAllocator, newMessages(data))
}

func decodeGroups(mem memory.Allocator, msgs *messages) ([]forager.Group, error) {
	var groups []forager.Group
	err := rolloutTable.decode(mem, msgs, func(row *rolloutRow) error {
		if err := row.unpack(); err != nil {
			return err
		}
		if n := len(groups); n > 0 && groups[n-1].Credit == row.credit {
			groups[n-1].Rollouts = append(groups[n-1].Rollouts, row.rollout)
			return nil
		} else if n > 0 && sameGroup(groups[n-1].Credit, row.credit) {
			return fmt.Errorf("rollout %s: its group has two credits", row.rollout.ID)
		}
		groups = append(groups, forager.Group{Credit: row.credit, Rollouts: []forager.Rollout{row.rollout}})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return groups, nil
}

func sameGroup(a, b forager.Credit) bool { return a.Run == b.Run && a.Index == b.Index }

func checkGroups(groups []forager.Group) error {
	for i, g := range groups {
		if len(g.Rollouts) == 0 {
			return fmt.Errorf("group %d of run %s has no rollouts", g.Credit.Index, g.Credit.Run)
		}
		if i > 0 && sameGroup(groups[i-1].Credit, g.Credit) {
			return fmt.Errorf("group %d of run %s is there twice", g.Credit.Index, g.Credit.Run)
		}
		for j := range g.Rollouts {
			r := &g.Rollouts[j]
			if r.Run != g.Credit.Run || r.Group != g.Credit.Index || r.TaskID != g.Credit.TaskID {
				return fmt.Errorf("rollout %s (run %s, group %d, task %s) is not of its credit (run %s, group %d, task %s)",
					r.ID, r.Run, r.Group, r.TaskID, g.Credit.Run, g.Credit.Index, g.Credit.TaskID)
			}
			if err := r.Validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

// rolloutRows packs one rollout after the other into the same row.
func rolloutRows(groups []forager.Group) iter.Seq[*rolloutRow] {
	return func(yield func(*rolloutRow) bool) {
		var row rolloutRow
		for _, g := range groups {
			row.credit = g.Credit
			for _, r := range g.Rollouts {
				row.pack(r)
				if !yield(&row) {
					return
				}
			}
		}
	}
}

func (row *rolloutRow) pack(r forager.Rollout) {
	row.rollout = r
	row.logprobs = row.logprobs[:0]
	for i, sampled := range r.LossMask {
		if sampled {
			row.logprobs = append(row.logprobs, r.Logprobs[i])
		}
	}
	row.rewards = row.rewards[:0]
	for source, value := range r.Rewards {
		row.rewards = append(row.rewards, sourceReward{source, value})
	}
	slices.SortFunc(row.rewards, func(a, b sourceReward) int { return strings.Compare(a.source, b.source) })
}

func (row *rolloutRow) unpack() error {
	r := &row.rollout
	if m := r.PolicyTokens(); m != len(row.logprobs) {
		return fmt.Errorf("rollout %s: %d logprobs for %d policy tokens", r.ID, len(row.logprobs), m)
	}
	r.Logprobs = make([]float32, len(r.LossMask))
	next := 0
	for i, sampled := range r.LossMask {
		if sampled {
			r.Logprobs[i] = row.logprobs[next]
			next++
		}
	}
	if len(row.rewards) > 0 {
		r.Rewards = make(map[string]float64, len(row.rewards))
		for _, reward := range row.rewards {
			r.Rewards[reward.source] = reward.value
		}
	}
	row.credit.Run, row.credit.Index, row.credit.TaskID = r.Run, r.Group, r.TaskID
	return r.Validate()
}
