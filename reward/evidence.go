package reward

import (
	"strings"

	"github.com/forager-rl/forager"
)

// EvidenceRecall is the share, in [0, 1], of a task's gold evidence that was
// observed in any turn. ids and titles are those of all passages shown; either may
// be nil. known is false when the task names no evidence.
//
// Passage ids differ between dumps of one corpus, so recall is computed over
// gold ids and over gold titles, and the greater counts. Titles are compared
// lower-cased, without surrounding quotes.
func EvidenceRecall(task forager.Task, ids, titles []string) (recall float64, known bool) {
	if len(task.Gold) == 0 && len(task.GoldTitles) == 0 {
		return 0, false
	}
	byID := share(task.Gold, ids, strings.TrimSpace)
	byTitle := share(task.GoldTitles, titles, titleKey)
	return max(byID, byTitle), true
}

// share is the part of the distinct wanted keys that is among the seen.
func share(wanted, seen []string, key func(string) string) float64 {
	want := make(map[string]bool, len(wanted)) // value: found
	for _, w := range wanted {
		want[key(w)] = false
	}
	found := 0
	for _, s := range seen {
		k := key(s)
		if already, wanted := want[k]; wanted && !already {
			want[k] = true
			found++
		}
	}
	if found == 0 {
		return 0
	}
	return float64(found) / float64(len(want))
}

func titleKey(title string) string {
	return strings.ToLower(strings.TrimSpace(strings.Trim(strings.TrimSpace(title), `"`)))
}

// RetrievalHit says whether any passage's normalised text or title contains a normalised
// gold answer: the "retrieved" of the format reward.
func RetrievalHit(golds []string, passages []forager.Passage) bool {
	for _, p := range passages {
		if SubEM(p.Text, golds) == 1 || SubEM(p.Title, golds) == 1 {
			return true
		}
	}
	return false
}
