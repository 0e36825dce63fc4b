package main

import (
	"cmp"
	"slices"
)

// auc is the area under the receiver operating characteristic: the probability
// that a helpful turn has a higher score than one that is not, ties counting
// half (Mann and Whitney 1947). It is NaN unless there are turns of both kinds.
func auc(turns []turn, scores []float64) float64 {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	helpful, ranks := 0.0, 0.0
	for from := 0; from < len(order); {
		to := from
		for to < len(order) && scores[order[to]] == scores[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			if turns[i].label > 0.5 {
				helpful++
				ranks += float64(from+to+1) / 2 // mean rank of those that tie, from 1
			}
		}
		from = to
	}
	return (ranks - helpful*(helpful+1)/2) / (helpful * (float64(len(order)) - helpful))
}

// aucWithin is the mean AUC inside the questions that have turns of both kinds:
// what a group baseline sees of a score.
func aucWithin(turns []turn, scores []float64) float64 {
	sum, questions := 0.0, 0.0
	for from := 0; from < len(turns); { // turns of a question follow each other
		to := from
		for to < len(turns) && turns[to].question == turns[from].question {
			to++
		}
		if one := auc(turns[from:to], scores[from:to]); one == one { // not NaN
			sum += one
			questions++
		}
		from = to
	}
	return sum / questions
}
