package search

import (
	"math"
	"slices"
)

// NDCG is the normalised discounted cumulative gain of a ranking at depth k,
// in [0, 1], with linear gain and log2 discount as trec_eval and BEIR compute
// it. Relevance is by passage id; a query with none gives 0. Ids that occur
// twice in the ranking count once.
func NDCG(ranked []string, relevance map[string]int, k int) float64 {
	gain := 0.0
	for i, id := range first(ranked, k) {
		gain += float64(max(relevance[id], 0)) / math.Log2(float64(i)+2)
	}
	ideal := make([]int, 0, len(relevance))
	for _, grade := range relevance {
		if grade > 0 {
			ideal = append(ideal, grade)
		}
	}
	slices.SortFunc(ideal, func(a, b int) int { return b - a })
	best := 0.0
	for i, grade := range ideal[:min(k, len(ideal))] {
		best += float64(grade) / math.Log2(float64(i)+2)
	}
	if best == 0 {
		return 0
	}
	return gain / best
}

// Recall is the share of the wanted things (ids or titles) among the first k
// of a ranking, in [0, 1]; 0 when nothing is wanted.
func Recall(ranked, wanted []string, k int) float64 {
	wanted = unique(wanted)
	if len(wanted) == 0 {
		return 0
	}
	found := 0
	for _, id := range ranked[:min(k, len(ranked))] {
		if i := slices.Index(wanted, id); i >= 0 {
			found++
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	return float64(found) / float64(found+len(wanted))
}

// first is the first k distinct elements of a ranking.
func first(ranked []string, k int) []string {
	distinct := unique(ranked)
	return distinct[:min(k, len(distinct))]
}
