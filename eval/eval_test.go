package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func task(id string, hops int, gold ...string) forager.Task {
	return forager.Task{ID: id, Dataset: "set", Type: "bridge", Hops: hops, Answers: []string{"right"}, Gold: gold}
}

func rollout(taskID, answer string, searches int) forager.Rollout {
	r := forager.Rollout{
		ID: taskID + "-" + answer, TaskID: taskID, Answer: answer, Finish: forager.FinishAnswer,
		LossMask: []bool{false, true, true}, Rewards: map[string]float64{reward.SourceValid: 1},
	}
	for i := range searches {
		r.Turns = append(r.Turns, forager.Turn{Kind: forager.TurnSearch, DocIDs: []string{fmt.Sprint("p", i)}})
	}
	return r
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-12 }

func TestEvaluateKnownAnswers(t *testing.T) {
	tasks := []forager.Task{task("one", 1, "p0"), task("two", 2, "p0", "p9"), task("three", 2), task("idle", 3)}
	failed := rollout("idle", "", 1)
	failed.Finish = forager.FinishRetriever
	rollouts := []forager.Rollout{
		rollout("one", "right", 1),
		rollout("two", "right", 2), rollout("two", "wrong", 4), // one question, mean .5
		rollout("three", "wrong right", 0),
		failed,
	}
	report, err := Evaluate(tasks, rollouts, DefaultConfig(), random(1))
	if err != nil {
		t.Fatal(err)
	}
	if report.Questions != 3 || report.Unplayed != 1 || report.Rollouts != 4 || report.Failed != 1 || report.Finish[forager.FinishAnswer] != 4 {
		t.Errorf("counts: %+v", report)
	}
	for name, want := range map[string]float64{
		EM:             (1 + .5 + 0) / 3,
		F1:             (1 + .5 + 2.0/3) / 3,
		SubEM:          (1 + .5 + 1) / 3,
		EvidenceRecall: (1 + .5) / 2, // the third names no evidence
		ValidFormat:    1,
		Searches:       (1 + 3 + 0) / 3.0,
		PolicyTokens:   2,
	} {
		e := report.Overall.Metrics[name]
		if !near(e.Mean, want) || !(e.Low <= e.Mean && e.Mean <= e.High) {
			t.Errorf("overall %s: %+v, want mean %v", name, e, want)
		}
	}
	if n := report.Overall.Metrics[EvidenceRecall].N; n != 2 {
		t.Errorf("evidence recall known for %d questions, want 2", n)
	}
	if got := report.Macro.Metrics[EM].Mean; !near(got, (1+.25)/2) {
		t.Errorf("macro em %v", got)
	}
	if len(report.ByHops) != 2 || report.ByHops[1].Name != "2" || !near(report.ByHops[1].Metrics[EM].Mean, .25) {
		t.Errorf("by hops: %+v", report.ByHops)
	}
}

// TestIntervalMatchesTheory: the mean of n Bernoulli(p) questions has standard
// error sqrt(p(1-p)/n); the interval must be close to ±1.96 of it.
func TestIntervalMatchesTheory(t *testing.T) {
	const n = 400
	var tasks []forager.Task
	var rollouts []forager.Rollout
	for i := range n {
		id := fmt.Sprint(i)
		answer := "wrong"
		if i < n*3/10 {
			answer = "right"
		}
		tasks, rollouts = append(tasks, task(id, 1)), append(rollouts, rollout(id, answer, 1))
	}
	report, err := Evaluate(tasks, rollouts, DefaultConfig(), random(7))
	if err != nil {
		t.Fatal(err)
	}
	e := report.Overall.Metrics[EM]
	want := 1.96 * math.Sqrt(.3*.7/n)
	if math.Abs(e.High-.3-want) > .15*want || math.Abs(.3-e.Low-want) > .15*want {
		t.Errorf("interval [%v, %v], want .3 ± %v", e.Low, e.High, want)
	}
	if s := report.Overall.Metrics[Searches]; s.Low != 1 || s.High != 1 {
		t.Errorf("a constant has the interval %+v", s)
	}

	again, err := Evaluate(tasks, rollouts, DefaultConfig(), random(7))
	if err != nil || !reflect.DeepEqual(report, again) {
		t.Error("equal seeds give different reports")
	}
}

func TestCompareIsPaired(t *testing.T) {
	var tasks []forager.Task
	var before, after []forager.Rollout
	for i := range 100 {
		id := fmt.Sprint(i)
		tasks = append(tasks, task(id, 1+i%2))
		old, now := "wrong", "wrong"
		if i < 50 { // easy questions are right both times
			old, now = "right", "right"
		} else if i < 60 {
			now = "right"
		}
		before, after = append(before, rollout(id, old, 2)), append(after, rollout(id, now, 1))
	}
	evaluate := func(tasks []forager.Task, rollouts []forager.Rollout) Report {
		r, err := Evaluate(tasks, rollouts, DefaultConfig(), random(3))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := evaluate(tasks, before), evaluate(tasks[:90], after[:90])
	c, err := Compare(a, b, DefaultConfig(), random(4))
	if err != nil {
		t.Fatal(err)
	}
	if c.Paired != 90 || c.OnlyBefore != 10 || c.OnlyAfter != 0 {
		t.Errorf("pairs: %d, %d, %d", c.Paired, c.OnlyBefore, c.OnlyAfter)
	}
	em := c.Overall.Metrics[EM]
	if !near(em.Mean, 10.0/90) || em.Low <= 0 {
		t.Errorf("em change %+v", em)
	}
	whole := b.Overall.Metrics[EM]
	if em.High-em.Low >= whole.High-whole.Low {
		t.Error("pairing does not narrow the interval")
	}
	if s := c.Overall.Metrics[Searches]; s.Mean != -1 || s.Low != -1 || s.High != -1 {
		t.Errorf("searches change %+v", s)
	}

	same, err := Compare(a, a, DefaultConfig(), random(4))
	if err != nil || same.Overall.Metrics[EM] != (Estimate{N: 100}) {
		t.Errorf("a report against itself: %+v, %v", same.Overall.Metrics[EM], err)
	}
	other := evaluate([]forager.Task{task("x", 1)}, []forager.Rollout{rollout("x", "", 0)})
	if _, err := Compare(a, other, DefaultConfig(), random(4)); err == nil {
		t.Error("reports without a common question compare")
	}
}

func TestBadInput(t *testing.T) {
	one := []forager.Task{task("one", 1)}
	if _, err := Evaluate(one, []forager.Rollout{rollout("two", "x", 0)}, DefaultConfig(), random(1)); !errors.Is(err, forager.ErrNotFound) {
		t.Errorf("unknown task: %v", err)
	}
	if _, err := Evaluate(append(one, one...), nil, DefaultConfig(), random(1)); err == nil {
		t.Error("a task given twice passes")
	}
	if _, err := Evaluate(one, nil, DefaultConfig(), random(1)); err == nil {
		t.Error("an evaluation without rollouts passes")
	}
	for _, c := range []Config{{}, {Resamples: 1}, {Resamples: 1, Confidence: 1}, {Resamples: 1, Confidence: math.NaN()}} {
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
}

func TestOutputs(t *testing.T) {
	r := rollout("one", "right", 1)
	r.Rewards = nil // validity unknown
	report, err := Evaluate([]forager.Task{task("one", 0)}, []forager.Rollout{r}, DefaultConfig(), random(1))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(report, back) {
		t.Errorf("JSON does not keep the report: %v\n%s", err, raw)
	}
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 questions, 1 rollouts", "answer 1", "1.000 [1.000, 1.000]", "hops unknown", "data set set", "type bridge"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
	if len(vector{}) != len(Metrics()) {
		t.Error("vector and Metrics differ in length")
	}
	if err := report.WriteText(brokenWriter{}); err == nil {
		t.Error("a failing writer goes unnoticed")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func BenchmarkEvaluate(b *testing.B) {
	var tasks []forager.Task
	var rollouts []forager.Rollout
	for i := range 1000 {
		id := fmt.Sprint(i)
		tasks, rollouts = append(tasks, task(id, 1+i%3)), append(rollouts, rollout(id, "right", 2))
	}
	for b.Loop() {
		if _, err := Evaluate(tasks, rollouts, DefaultConfig(), random(1)); err != nil {
			b.Fatal(err)
		}
	}
}
