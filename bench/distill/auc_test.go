package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestAUC compares with the definition: the share of pairs in the right order.
func TestAUC(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		turns, scores := make([]turn, 30), make([]float64, 30)
		for i := range turns {
			turns[i].label, scores[i] = float64(rng.IntN(2)), float64(rng.IntN(8))
		}
		right, pairs := 0.0, 0.0
		for i := range turns {
			for j := range turns {
				if turns[i].label > turns[j].label {
					pairs++
					switch {
					case scores[i] > scores[j]:
						right++
					case scores[i] == scores[j]:
						right += 0.5
					}
				}
			}
		}
		if got := auc(turns, scores); math.Abs(got-right/pairs) > 1e-12 {
			t.Fatalf("AUC is %v, want %v", got, right/pairs)
		}
	}
}

func TestAUCWithin(t *testing.T) {
	turns := []turn{
		{question: 1, label: 1}, {question: 1}, // right
		{question: 2, label: 1}, {question: 2}, // a tie
		{question: 3}, {question: 3}, // of one kind: left out
	}
	if got := aucWithin(turns, []float64{2, 1, 5, 5, 9, 8}); got != 0.75 {
		t.Errorf("AUC within questions is %v, want 0.75", got)
	}
}
