package rewardsrv

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// TestPairs: a step is compared with an earlier, different one of its task, once.
func TestPairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, compared := newStream(), map[string]string{}
		var mu sync.Mutex // of compared: several workers ask
		grader := newScripted(func(_ context.Context, item rubric.Item) (Verdict, error) {
			if item.Other == nil || item.Other.Query == item.Query {
				t.Errorf("%s is compared with %+v", item.Query, item.Other)
				return Verdict{}, ErrUnusable
			}
			mu.Lock()
			defer mu.Unlock()
			compared[item.Query] = item.Other.Query
			return Verdict{Value: 0.5}, nil
		})
		grader.unit = rubric.Pair
		r := start(t, s, grader, nil)
		const steps = pairSteps
		for round := range 3 {
			for i := range steps {
				s.digests <- digestOf(fmt.Sprint("r", round, i), 0, fmt.Sprint("query ", i))
			}
		}
		synctest.Wait()
		r.stop()
		labels := s.labels()
		if len(compared) != steps-1 || compared["query 0"] != "" || grader.total() != steps-1 {
			t.Errorf("%d steps compared, %d calls", len(compared), grader.total())
		}
		byRound := map[byte]int{} // later rollouts get the labels of the first
		for _, a := range labels {
			byRound[a.RolloutID[1]]++
			if a.Judgement.Query != "" && a.Judgement.OtherQuery == "" {
				t.Errorf("%+v", a)
			}
		}
		if fmt.Sprint(byRound) != fmt.Sprint(map[byte]int{'0': steps - 1, '1': steps - 1, '2': steps - 1}) {
			t.Errorf("labels by round: %v", byRound)
		}
	})
}

func TestPairPoolIsBounded(t *testing.T) {
	p := newPool(newHarnessRandom())
	for i := range 3 * pairTasks {
		for k := range 6 * pairSteps {
			if i > 0 && k > 2 {
				break
			}
			d := digestOf("r", 0, fmt.Sprint("query ", k))
			d.TaskID = fmt.Sprint("task ", i)
			other, ok := p.partner(d)
			if again, same := p.partner(d); same != ok || again.key != other.key {
				t.Fatalf("task %d, step %d: another partner the second time", i, k)
			}
			if ok == (k == 0) {
				t.Fatalf("task %d, step %d: partner %v", i, k, ok)
			}
			task, _ := p.tasks.Peek(d.TaskID)
			if len(task.kept) > pairSteps || len(task.partners) > pairPartners || len(task.order) != len(task.partners) {
				t.Fatalf("%d steps, %d partners, %d in order", len(task.kept), len(task.partners), len(task.order))
			}
		}
	}
	if p.tasks.Len() != pairTasks {
		t.Errorf("%d tasks are kept", p.tasks.Len())
	}
	for i := range 3000 { // of 40 kB each
		d := digestOf("r", 0, fmt.Sprint("long ", i))
		d.TaskID, d.Observation = fmt.Sprint("long ", i/3), strings.Repeat("x", 40_000)
		p.partner(d)
	}
	bytes := 0
	for _, task := range p.tasks.Values() {
		bytes += task.bytes
	}
	if bytes != p.bytes || bytes > pairBytes || bytes < pairBytes/2 {
		t.Errorf("%d bytes are kept, %d counted", bytes, p.bytes)
	}
}

// TestWholeRollouts: one label for a rollout, with its answer and all that it
// found, on the annotation of the whole rollout; beside a judge of single turns.
func TestWholeRollouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		var items []rubric.Item
		whole := newScripted(func(_ context.Context, item rubric.Item) (Verdict, error) {
			items = append(items, item)
			return Verdict{Value: 0.75}, nil
		})
		whole.unit, whole.version = rubric.Rollout, "whole 1"
		turns := newScripted(yes)
		r := start(t, s, turns, func(_ *Config, d *Deps) {
			d.Judges = append(d.Judges, fixed{"supported", whole})
		})
		first, second := digestOf("r", 0, "x"), digestOf("r", 2, "y")
		second.Passages = append(second.Passages, forager.Passage{ID: "p9"})
		second.Earlier = []string{"x"}
		first.Answer, second.Answer = "Brussels", "Brussels"
		for _, rollout := range []string{"r", "same"} {
			first.RolloutID, second.RolloutID = rollout, rollout
			s.digests <- first
			s.digests <- second
		}
		synctest.Wait()
		r.stop()
		if len(items) != 1 || items[0].Answer != "Brussels" || items[0].Query != "y" || len(items[0].Passages) != 2 || len(items[0].Earlier) != 1 || items[0].Observation != "o\no" {
			t.Fatalf("judged %+v", items)
		}
		count := map[string]int{}
		for _, a := range s.labels() {
			count[fmt.Sprint(a.Source, " ", a.Turn, " ", *a.Value)]++
		}
		want := map[string]int{"helpful 0 1": 2, "helpful 2 1": 2, "supported -1 0.75": 2}
		if fmt.Sprint(count) != fmt.Sprint(want) || turns.total() != 2 {
			t.Errorf("%v, want %v; %d turns judged", count, want, turns.total())
		}
	})
}

func TestNewRubricIsJudgedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, grader := newStream(), newScripted(yes)
		r := start(t, s, grader, nil)
		for _, version := range []string{"v1", "v2", "v1"} {
			grader.version = version
			s.digests <- digestOf("r"+version, 0, "x")
			synctest.Wait()
		}
		r.stop()
		labels := s.labels()
		if grader.total() != 2 || len(labels) != 3 || labels[0].Key == labels[1].Key || labels[2].Key != labels[0].Key || labels[1].Rubric != "v2" {
			t.Errorf("%d calls, %+v", grader.total(), labels)
		}
	})
}
