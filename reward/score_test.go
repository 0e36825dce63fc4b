package reward

import (
	"maps"
	"math"
	"testing"

	"github.com/forager-rl/forager"
)

func TestFormatTable(t *testing.T) {
	knobs := FormatConfig{Structure: 0.2, Final: 0.1, Retrieval: 0.05}
	for _, c := range []struct {
		o    Outcome
		want float64
	}{
		{Outcome{Correct: true, Valid: true, Answered: true}, 1},
		{Outcome{Correct: true, Answered: true}, 0.8},
		{Outcome{Valid: true, Answered: true}, 0.2},
		{Outcome{Valid: true, Answered: true, Retrieved: true}, 0.25},
		{Outcome{Valid: true}, 0.2},
		{Outcome{Answered: true}, 0.1},
		{Outcome{Answered: true, Retrieved: true}, 0.1},
		{Outcome{}, 0},
	} {
		if got := Format(c.o, knobs); got != c.want {
			t.Errorf("Format(%+v) = %v, want %v", c.o, got, c.want)
		}
	}
	if err := (FormatConfig{Structure: 0.9, Retrieval: 0.2}).Validate(); err == nil {
		t.Error("a format reward above 1 passes")
	}
}

func TestEvidenceRecall(t *testing.T) {
	task := forager.Task{Gold: []string{"p1", "p2"}, GoldTitles: []string{"One", "Two"}}
	for _, c := range []struct {
		name        string
		ids, titles []string
		want        float64
	}{
		{"none", nil, nil, 0},
		{"one id, twice", []string{"p1", "p1", "p9"}, nil, 0.5},
		{"both ids", []string{"p2", "p1"}, nil, 1},
		{"titles of another dump", []string{"x1"}, []string{`"one"`, " TWO "}, 1},
		{"the better view counts", []string{"p1", "p2"}, []string{"One"}, 1},
	} {
		if got, known := EvidenceRecall(task, c.ids, c.titles); got != c.want || !known {
			t.Errorf("%s: %v, %v, want %v", c.name, got, known, c.want)
		}
	}
	if _, known := EvidenceRecall(forager.Task{}, []string{"p1"}, nil); known {
		t.Error("recall is known without gold evidence")
	}
}

func TestScore(t *testing.T) {
	task := forager.Task{Answers: []string{"Paris"}, Gold: []string{"p1"}}
	rollout := forager.Rollout{
		Answer: "Paris", Finish: forager.FinishAnswer,
		Turns: []forager.Turn{{Kind: forager.TurnSearch, DocIDs: []string{"p1"}}},
	}
	in := Input{Valid: true, Format: DefaultFormatConfig()}
	want := map[string]float64{"em": 1, "f1": 1, "sub_em": 1, "format": 1, "valid": 1, "evidence_recall": 1}
	if got := Score(task, rollout, in); !maps.Equal(got, want) {
		t.Errorf("right: %v, want %v", got, want)
	}

	for range 11 {
		in.Response += "<answer>Paris</answer>"
	}
	want = map[string]float64{"em": .25, "f1": .25, "sub_em": .25, "format": .25, "valid": 1, "evidence_recall": 1}
	if got := Score(task, rollout, in); !maps.Equal(got, want) {
		t.Errorf("eleven answer tags: %v, want %v", got, want)
	}

	// The gold answer in an observation is no answer.
	silent := forager.Rollout{Finish: forager.FinishTurns}
	in = Input{Format: DefaultFormatConfig(), Passages: []forager.Passage{{ID: "p7", Text: "Paris is large."}}}
	want = map[string]float64{"em": 0, "f1": 0, "sub_em": 0, "format": 0, "valid": 0}
	if got := Score(forager.Task{Answers: task.Answers}, silent, in); !maps.Equal(got, want) {
		t.Errorf("silent, no gold evidence: %v, want %v", got, want)
	}
	in.Valid, in.Format.Retrieval = true, 0.1
	if got := Score(task, silent, in)["format"]; math.Abs(got-0.3) > 1e-12 {
		t.Errorf("retrieved: format %v", got)
	}
}
