package rewardsrv

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// episode is the digests of one rollout that came together: the searches of a
// rollout are published at its end, in one message.
type episode []forager.TurnDigest

// episodes splits digests into runs of the same rollout.
func episodes(digests []forager.TurnDigest) []episode {
	var list []episode
	for start := 0; start < len(digests); {
		end := start + 1
		for end < len(digests) && digests[end].RolloutID == digests[start].RolloutID {
			end++
		}
		list = append(list, digests[start:end])
		start = end
	}
	return list
}

// step is a search as judges see it.
func step(d forager.TurnDigest) rubric.Step {
	return rubric.Step{Query: d.Query, Passages: d.Passages, Observation: d.Observation, Earlier: d.Earlier}
}

// stepKey identifies a step within its task.
func stepKey(d forager.TurnDigest) string {
	return forager.Digest(reward.Normalize(d.Query), forager.ObservationKey(d.Passages))
}

// TurnKey is the label key of a single search: equal ones are judged once.
// observation is forager.ObservationKey of its passages; earlier is the queries
// of the rollout before it, for rubrics with a history, else nil.
func TurnKey(rubricVersion, judge, taskID, query, observation string, earlier []string) string {
	parts := []string{rubricVersion, judge, taskID, reward.Normalize(query), observation}
	for _, q := range earlier {
		parts = append(parts, reward.Normalize(q))
	}
	return forager.Digest(parts...)
}

// turnItem is a single search, without its task.
func turnItem(g Grader, d forager.TurnDigest) rubric.Item {
	key := TurnKey(g.Rubric(), g.Judge(), d.TaskID, d.Query, forager.ObservationKey(d.Passages), history(g, d))
	return rubric.Item{Key: key, Question: d.Question, Step: step(d)}
}

// history is the earlier queries, if the rubric looks at them.
func history(g Grader, d forager.TurnDigest) []string {
	if !g.History() {
		return nil
	}
	return d.Earlier
}

// pairItem compares a step with another one of the same question.
func pairItem(g Grader, d forager.TurnDigest, other drawn) rubric.Item {
	key := forager.Digest(g.Rubric(), g.Judge(), d.TaskID, stepKey(d), other.key)
	return rubric.Item{Key: key, Question: d.Question, Step: step(d), Other: &other.step}
}

// rolloutItem is a whole rollout with its final answer. Its step is the last
// query with the passages of all searches.
func rolloutItem(g Grader, e episode) rubric.Item {
	last := e[len(e)-1]
	s := step(last)
	if len(e) > 1 {
		s.Passages = nil
		seen := map[string]bool{}
		var text []string
		for _, d := range e {
			text = append(text, d.Observation)
			for _, p := range d.Passages {
				if id := forager.Digest(p.ID, p.Title, p.Text); !seen[id] {
					seen[id] = true
					s.Passages = append(s.Passages, p)
				}
			}
		}
		s.Observation = strings.Join(text, "\n")
	}
	key := forager.Digest(g.Rubric(), g.Judge(), last.TaskID, reward.Normalize(last.Answer), reward.Normalize(last.Query), forager.ObservationKey(s.Passages))
	if g.History() {
		key = TurnKey(g.Rubric(), g.Judge(), last.TaskID, last.Answer, forager.ObservationKey(s.Passages), append(slices.Clone(last.Earlier), last.Query))
	}
	return rubric.Item{Key: key, Question: last.Question, Step: s, Answer: last.Answer}
}

// clean makes the texts of a digest valid UTF-8, in place where they are not:
// nothing later in the way of a label could carry others.
func clean(d *forager.TurnDigest) {
	for _, s := range []*string{&d.Question, &d.Query, &d.Observation, &d.Answer} {
		cleanText(s)
	}
	for i, q := range d.Earlier {
		if !utf8.ValidString(q) {
			d.Earlier = slices.Clone(d.Earlier) // shared with the other turns of the rollout, perhaps
			d.Earlier[i] = strings.ToValidUTF8(q, "\uFFFD")
		}
	}
	for i := range d.Passages {
		p := &d.Passages[i]
		for _, s := range []*string{&p.ID, &p.Title, &p.Text} {
			cleanText(s)
		}
	}
}

func cleanText(s *string) {
	if !utf8.ValidString(*s) {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
}

// textBytes is the text of a digest.
func textBytes(d forager.TurnDigest) int64 {
	n := len(d.RolloutID) + len(d.TaskID) + len(d.Question) + len(d.Query) + len(d.Observation) + len(d.Answer)
	for _, q := range d.Earlier {
		n += len(q)
	}
	for _, p := range d.Passages {
		n += len(p.ID) + len(p.Title) + len(p.Text)
	}
	return int64(n)
}

// itemBytes is the text that an item keeps alive.
func itemBytes(item rubric.Item) int64 {
	n := len(item.Question) + len(item.Answer) + stepBytes(item.Step)
	if item.Other != nil {
		n += stepBytes(*item.Other)
	}
	return int64(n)
}

// traceBytes is the text of a place in a trace.
func traceBytes(at forager.Trace) int64 { return int64(len(at.Parent) + len(at.State)) }

func stepBytes(s rubric.Step) int {
	n := len(s.Query) + len(s.Observation)
	for _, q := range s.Earlier {
		n += len(q)
	}
	for _, p := range s.Passages {
		n += len(p.ID) + len(p.Title) + len(p.Text)
	}
	return n
}
