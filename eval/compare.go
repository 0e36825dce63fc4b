package eval

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/forager-rl/forager"
)

// Comparison is the change from one report to another: estimates are means of
// per-question differences, after minus before. An interval without 0 in it is
// a change that resampling the questions does not explain.
type Comparison struct {
	Paired     int     `json:"paired"`      // questions in both reports; only these count
	OnlyBefore int     `json:"only_before"` // questions in one report alone
	OnlyAfter  int     `json:"only_after"`
	Resamples  int     `json:"resamples"`
	Confidence float64 `json:"confidence"`
	Breakdown
}

// Compare pairs two reports by task id. Pairing removes the spread between easy
// and hard questions, so its intervals are narrower than those of the reports.
func Compare(before, after Report, config Config, rng *rand.Rand) (Comparison, error) {
	if err := config.Validate(); err != nil {
		return Comparison{}, err
	}
	old := make(map[string]Question, len(before.PerQuestion))
	for _, q := range before.PerQuestion {
		old[q.TaskID] = q
	}
	c := Comparison{Resamples: config.Resamples, Confidence: config.Confidence}
	var differences []Question
	for _, q := range after.PerQuestion {
		b, paired := old[q.TaskID]
		if !paired {
			c.OnlyAfter++
			continue
		}
		delete(old, q.TaskID)
		d := q
		d.Metrics = map[string]float64{}
		for name, v := range q.Metrics {
			if w, known := b.Metrics[name]; known {
				d.Metrics[name] = v - w
			}
		}
		differences = append(differences, d)
	}
	c.Paired, c.OnlyBefore = len(differences), len(old)
	if c.Paired == 0 {
		return Comparison{}, forager.WithHint(
			fmt.Errorf("compare reports: %w", errors.New("they share no question")),
			"evaluate both on the same tasks")
	}
	c.Breakdown = breakdown(differences, estimator{config, rng})
	return c, nil
}
