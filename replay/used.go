package replay

import (
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// usedBytes bounds the annotations of one commit request, so that it fits into
// the smallest message that a bus is likely to allow.
const usedBytes = 256 << 10

// commitPart is one request of a commit: groups, and the annotations that they
// were learned from with, encoded; nil where these are not known.
type commitPart struct {
	keys []uint64
	used []byte
}

// commitParts splits a commit into requests of bounded size. A group whose
// annotations fit into none goes without them.
func commitParts(keys []uint64, used map[uint64][]forager.Annotation) ([]commitPart, error) {
	var unknown []uint64
	var parts []commitPart
	var part commitPart
	var list []forager.Annotation
	size := 0
	flush := func() (err error) {
		if len(part.keys) == 0 {
			return nil
		}
		if part.used, err = batch.EncodeAnnotations(list); err != nil {
			return fmt.Errorf("encode the annotations of a commit: %w", err)
		}
		parts = append(parts, part)
		part, list, size = commitPart{}, nil, 0
		return nil
	}
	for _, key := range keys {
		of, known := used[key]
		more := annotationBytes(of)
		if !known || more > usedBytes {
			unknown = append(unknown, key)
			continue
		}
		if size+more > usedBytes {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		part.keys, list, size = append(part.keys, key), append(list, of...), size+more
	}
	if len(unknown) > 0 {
		parts = append(parts, commitPart{keys: unknown})
	}
	return parts, flush()
}

// annotationBytes is about how much annotations take when encoded.
func annotationBytes(list []forager.Annotation) int {
	const fixed = 96 // numbers, and an offset for every text
	n := 0
	for i := range list {
		a := &list[i]
		n += fixed + len(a.RolloutID) + len(a.Source) + len(a.Key) + len(a.Judge) + len(a.Rubric) + len(a.Rationale)
	}
	return n
}

// putUsed gives the rollouts of groups the annotations of a commit in place of
// those that have come since.
func putUsed(groups []forager.Group, encoded []byte) error {
	list, err := batch.DecodeAnnotations(encoded)
	if err != nil {
		return fmt.Errorf("annotations of a commit: %w", err)
	}
	of := make(map[string][]forager.Annotation)
	for _, a := range list {
		of[a.RolloutID] = append(of[a.RolloutID], a)
	}
	for g := range groups {
		for r := range groups[g].Rollouts {
			rollout := &groups[g].Rollouts[r]
			rollout.Annotations = of[rollout.ID]
		}
	}
	return nil
}
