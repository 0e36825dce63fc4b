package main

import (
	"context"
	"math/rand/v2"

	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

// marks are the numbers of labels at which a model is measured.
var marks = []int{100, 300, 1000, 3000, 10_000, 30_000}

var kinds = []rewardmodel.Kind{rewardmodel.Classification, rewardmodel.Ranking}

// learn plays one run and trains both kinds of models on it.
func learn(ctx context.Context, o options, seed uint64, p *player, report *report) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	students := make([]*student, len(kinds))
	for i, kind := range kinds {
		config := rewardmodel.DefaultConfig()
		config.Kind = kind
		trainer, err := rewardmodel.NewTrainer(config, seed)
		if err != nil {
			return err
		}
		students[i] = &student{kind: kind, trainer: trainer, arrival: o.arrival}
	}
	for labels := 0; labels < o.labels; {
		for _, question := range rng.Perm(len(p.tasks)) {
			group, err := p.play(ctx, question, o.group, rng)
			if err != nil {
				return err
			}
			for _, t := range group {
				if labels == o.labels {
					break
				}
				labels++
				a, b := group[rng.IntN(len(group))], group[rng.IntN(len(group))]
				preference := (1 + a.label - b.label) / 2
				if rng.Float64() < o.flipped {
					t.label, preference = 1-t.label, 1-preference
				}
				for _, s := range students {
					if s.kind == rewardmodel.Classification {
						s.trainer.Add(t.example, t.label)
					} else {
						s.trainer.AddPair(a.example, b.example, preference)
					}
					s.arrived(labels, report)
				}
			}
		}
	}
	return nil
}

// student trains one model.
type student struct {
	kind    rewardmodel.Kind
	trainer *rewardmodel.Trainer
	arrival int
	pending int
}

// arrived trains when enough labels have come together, and measures at marks.
func (s *student) arrived(labels int, report *report) {
	s.pending++
	mark := false
	for _, m := range marks {
		mark = mark || m == labels
	}
	if s.pending < s.arrival && !mark {
		return
	}
	s.trainer.Train(s.pending)
	s.pending = 0
	if mark {
		report.measure(s.trainer.Snapshot(), labels)
	}
}
