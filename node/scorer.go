package node

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

// scorer gives the search turns of sampled groups the values of the intrinsic
// source, also those that no judge has seen: what the newest reward model says
// of them, or what the judge said of the same step elsewhere. It has all that at
// hand and never waits; what is unknown stays without a value.
type scorer struct {
	source  string
	shuffle bool   // the negative control
	seed    uint64 // of the shuffle
	tasks   *dataset
	decode  func(tokens []int32) string
	models  *modelWatcher // nil: the source is labels
	labels  *labelTable   // nil: the source is a reward model
	clock   func() time.Time
}

// annotate appends to the annotations of groups.
func (s *scorer) annotate(groups []forager.Group) {
	if s == nil {
		return
	}
	var value func(r *forager.Rollout, turn int) (forager.Annotation, bool)
	if s.labels != nil {
		value = s.lookUp
	} else if m := s.models.current.Load(); m != nil {
		value = s.by(m)
	} else {
		return
	}
	for g := range groups {
		for i := range groups[g].Rollouts {
			r := &groups[g].Rollouts[i]
			if r.Validate() != nil {
				continue // the learner leaves it out
			}
			for turn := range r.Turns {
				if r.Turns[turn].Kind != forager.TurnSearch {
					continue
				}
				if a, ok := value(r, turn); ok {
					a.RolloutID, a.Turn, a.Source = r.ID, turn, s.source
					r.Annotations = append(r.Annotations, a)
				}
			}
		}
	}
	if s.shuffle {
		s.deal(groups)
	}
}

// by scores turns with a model. The rollouts of a group often search alike: each
// distinct step is read once.
func (s *scorer) by(m *rewardmodel.Model) func(*forager.Rollout, int) (forager.Annotation, bool) {
	judge, version, now := forager.ModelJudge+string(m.Kind()), strconv.FormatUint(m.Version(), 10), s.clock()
	known := make(map[rewardmodel.Example]float64)
	return func(r *forager.Rollout, turn int) (forager.Annotation, bool) {
		t := &r.Turns[turn]
		task, err := s.tasks.Task(r.TaskID)
		if err != nil || t.Observation.Len() == 0 {
			return forager.Annotation{}, false
		}
		step := rewardmodel.Example{
			Question: task.Question, Query: t.Text,
			Observation: s.decode(r.Tokens[t.Observation.Start:t.Observation.End]), // as the player does for the judge
		}
		value, seen := known[step]
		if !seen {
			value = m.Reward(step)
			known[step] = value
		}
		return forager.Annotation{Value: &value, Judge: judge, Rubric: version, Time: now}, true
	}
}

// lookUp finds the label of a turn that has none, by what was searched and found.
func (s *scorer) lookUp(r *forager.Rollout, turn int) (forager.Annotation, bool) {
	for i := range r.Annotations {
		if a := &r.Annotations[i]; a.Turn == turn && a.Source == s.source && a.Value != nil {
			return forager.Annotation{}, false
		}
	}
	var earlier []string
	for _, t := range r.Turns[:turn] {
		if t.Kind == forager.TurnSearch {
			earlier = append(earlier, t.Text)
		}
	}
	return s.labels.find(r.TaskID, r.Turns[turn], earlier)
}

// deal permutes the values of the source among all turns of the groups.
func (s *scorer) deal(groups []forager.Group) {
	var places []*forager.Annotation
	var values []*float64
	for g := range groups {
		for i := range groups[g].Rollouts {
			list := groups[g].Rollouts[i].Annotations
			for j := range list {
				if a := &list[j]; a.Source == s.source && a.Value != nil {
					places, values = append(places, a), append(values, a.Value)
				}
			}
		}
	}
	if len(values) == 0 {
		return
	}
	first := groups[0].Credit.Index // the same groups are dealt out in the same way
	rand.New(rand.NewPCG(s.seed, first)).Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
	for i, a := range places {
		a.Value = values[i]
	}
}
