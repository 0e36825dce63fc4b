package main

import (
	"context"
	"testing"

	"github.com/forager-rl/forager/internal/realdata"
)

// TestDistillationWorks holds the page in docs/results to a small part of what
// it says: after 300 labels both kinds know turns of unseen questions.
func TestDistillationWorks(t *testing.T) {
	realdata.Path(t, "closed_multihop")
	report, err := distill(context.Background(), options{seeds: 1, labels: 300, arrival: 64, group: 8, style: "search-r1", maxBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		got := report.values[cell{kind, 300}]
		if len(got) != 1 {
			t.Fatalf("%s: %d measurements", kind, len(got))
		}
		if got[0].all < 0.9 || got[0].close < 0.85 || got[0].within < 0.9 {
			t.Errorf("%s: %+v, want AUC of 0.90, 0.85 and 0.90 at least", kind, got[0])
		}
	}
	for i, b := range baselines {
		if m := report.baseline(i); m.all < 0.6 || m.all > 0.9 {
			t.Errorf("%s: AUC %v", b.name, m.all)
		}
	}
}
