package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

func gold(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gold.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadGold(t *testing.T) {
	known := map[string]forager.Task{"q1": {ID: "q1", Question: "Where?", Answers: []string{"Vientiane"}}}
	turns, err := ReadGold(gold(t,
		`{"task": "q1", "query": "Laos", "passages": [{"id": "p", "title": "Laos", "text": "..."}], "label": 1}`,
		``,
		`{"task": {"id": "q2", "question": "When?", "answers": ["1975"]}, "query": "a", "earlier": ["b"], "label": 0.5, "other": {"query": "c"}, "by": "me"}`,
		`{"task": "q3", "question": "Who?", "query": "a", "passages": [], "label": 0}`,
	), known)
	if err != nil || len(turns) != 3 {
		t.Fatalf("%+v, %v", turns, err)
	}
	a, b, c := turns[0], turns[1], turns[2]
	if a.Gold != 1 || a.Question != "Where?" || a.Task.Answers[0] != "Vientiane" || a.Passages[0].Title != "Laos" || a.Other != nil {
		t.Errorf("%+v", a)
	}
	if b.Gold != 0.5 || b.Question != "When?" || b.Earlier[0] != "b" || b.Other == nil || b.Other.Query != "c" {
		t.Errorf("%+v", b)
	}
	if c.Gold != 0 || c.Question != "Who?" || c.Task.ID != "q3" || a.Key == c.Key || c.Key == "" {
		t.Errorf("%+v", c)
	}
	for text, want := range map[string]string{
		`{"task": "q1", "query": "a"}`:               "gold.jsonl:1: no label",
		`{"query": "a", "label": 1}`:                 "gold.jsonl:1: no task",
		`{"task": "q9", "query": "a", "label": 1}`:   "has a question",
		`{"task": 7, "query": "a", "label": 1}`:      "neither an id nor a task",
		`{"task": "q1", "query": 1, "label": 1}`:     "not a turn",
		`{"task": "q1", "query": "a", "label": "1"}`: "not a turn",
		``: "holds none",
	} {
		if _, err := ReadGold(gold(t, text), known); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// titles finds the passages whose title is the query or in it.
type titles []forager.Passage

func (c titles) Search(_ context.Context, queries []string, k int) ([][]forager.Passage, error) {
	answers := make([][]forager.Passage, len(queries))
	for i, q := range queries {
		for _, p := range c {
			if strings.Contains(q, p.Title) && len(answers[i]) < k {
				answers[i] = append(answers[i], p)
			}
		}
	}
	return answers, nil
}

func TestMake(t *testing.T) {
	var corpus titles
	var tasks []forager.Task
	for i := range 30 {
		title := fmt.Sprintf("City%02d", i)
		corpus = append(corpus, forager.Passage{ID: "p" + title, Title: title, Text: "..."})
		task := forager.Task{ID: "q" + title, Question: "Where is " + title + "?"}
		if i%2 == 0 {
			task.Gold = []string{"p" + title}
		} else {
			task.GoldTitles = []string{strings.ToLower(title)}
			task.Question = "Where is " + title
		}
		tasks = append(tasks, task)
	}
	tasks = append(tasks, forager.Task{ID: "unknown", Question: "?"})
	make := func(seed uint64, o MakeOptions) []Turn {
		turns, err := Make(t.Context(), tasks, corpus, o, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}
		return turns
	}
	turns := make(1, MakeOptions{Turns: 41, Passages: 2})
	positive := 0
	for _, turn := range turns {
		if want := found(turn.Task, turn.Step); turn.Gold != want || turn.Task.ID == "unknown" {
			t.Errorf("%+v", turn)
		}
		positive += int(turn.Gold)
	}
	if len(turns) != 41 || positive < 10 || positive > 25 {
		t.Errorf("%d turns, %d of them positive", len(turns), positive)
	}
	if !reflect.DeepEqual(turns, make(1, MakeOptions{Turns: 41, Passages: 2})) || reflect.DeepEqual(turns, make(2, MakeOptions{Turns: 41, Passages: 2})) {
		t.Error("turns do not follow the seed")
	}
	for _, turn := range make(1, MakeOptions{Turns: 20, Passages: 2, Pairs: true}) {
		if want := 0.5 + (found(turn.Task, turn.Step)-found(turn.Task, *turn.Other))/2; turn.Gold != want {
			t.Errorf("%+v", turn)
		}
	}
	if _, err := Make(t.Context(), tasks, corpus, MakeOptions{Turns: 61, Passages: 2}, rand.New(rand.NewPCG(1, 0))); err == nil || !strings.Contains(err.Error(), "only 60 turns") {
		t.Errorf("too many turns: %v", err)
	}
	if _, err := Make(t.Context(), tasks[30:], corpus, MakeOptions{Turns: 1, Passages: 2}, rand.New(rand.NewPCG(1, 0))); err == nil {
		t.Error("tasks without gold passages made turns")
	}
}

// TestAsk: an answer of no use is asked for once more, then the turn fails;
// tokens of both count. A judge that is away ends the audit.
func TestAsk(t *testing.T) {
	var turns []Turn
	for i := range 40 {
		turns = append(turns, newTurn(rubric.Item{Question: fmt.Sprint(i), Step: rubric.Step{Query: fmt.Sprint(i % 4)}}, float64(i%2)))
	}
	clock := time.Unix(0, 0)
	now := func() time.Time { clock = clock.Add(10 * time.Second); return clock }
	asked := make([]atomic.Int32, len(turns))
	judge := func(_ context.Context, item rubric.Item) (Label, error) {
		var i int
		if _, err := fmt.Sscan(item.Question, &i); err != nil {
			t.Error(err)
		}
		try := asked[i].Add(1)
		label := Label{Value: float64(i % 2), Rationale: "because", Judgement: forager.Judgement{PromptTokens: 100, CompletionTokens: 1}}
		if item.Query == "3" || item.Query == "2" && try == 1 {
			return label, fmt.Errorf("no label line: %w", ErrUnusable)
		}
		return label, nil
	}
	heard := 0
	result, err := Ask(t.Context(), turns, judge, 8, now, func(done int) { heard = done })
	if err != nil || heard != len(turns) {
		t.Fatalf("%d done, %v", heard, err)
	}
	r := NewReport("tiny", "v", result, 0.5)
	if r.Turns != 40 || r.Failed != 10 || r.Answers != 20+2*10+2*10 || r.Unusable != 2*10+10 || r.N != 30 || r.Seconds != 10 || r.PromptTokens != 100*(20+20+20) {
		t.Errorf("%+v", r)
	}
	if *r.Kappa != 1 || r.Share.Value != 1 || r.AUC.Value != 1 {
		t.Errorf("%+v", r.Agreement)
	}
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := WriteOutcomes(path, result.Outcomes); err != nil {
		t.Fatal(err)
	}
	again, err := ReadGold(path, nil)
	if err != nil || !reflect.DeepEqual(again[1], turns[1]) {
		t.Errorf("outcomes are no gold file: %+v, %v", again, err)
	}

	away := errors.New("away")
	result, err = Ask(t.Context(), turns, func(_ context.Context, item rubric.Item) (Label, error) {
		if item.Question == "7" {
			return Label{}, away
		}
		return Label{Value: 1}, nil
	}, 1, now, func(int) {})
	if !errors.Is(err, away) || len(result.Outcomes) != 7 {
		t.Errorf("a judge that leaves: %d outcomes, %v", len(result.Outcomes), err)
	}
}

func TestWriteText(t *testing.T) {
	r := Report{Judge: "llm:tiny", Rubric: "sha256:beef", Turns: 51, Failed: 1, Answers: 60, Unusable: 10, Seconds: 25, PromptTokens: 9000, CompletionTokens: 1000}
	r.Agreement = Agree(join(repeat(20, 1, 1), repeat(5, 1, 0), repeat(10, 0, 1), repeat(15, 0, 0)), 0.5)
	var out strings.Builder
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	want := `judge llm:tiny, rubric sha256:beef, 51 turns with gold labels; 95 % intervals

agreement        0.700 [0.562, 0.809]  (always the most frequent gold label: 0.500)
Cohen's kappa    0.400
AUC              0.700 [0.554, 0.846]
without a label  1 of 51 turns
parse failures   0.167 [0.093, 0.280] of 60 answers
speed            2.00 labels/s, 25 s in all
tokens           9000 prompt, 1000 answer, 200 a label

  gold \ judge   0   1
             0  15  10
             1   5  20
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
