package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/rewardsrv/audit"
	"github.com/forager-rl/forager/rewardsrv/judge/judgetest"
)

// TestLabelsAudit asks a judge that goes by the query's first word.
func TestLabelsAudit(t *testing.T) {
	words, tag := regexp.MustCompile(`(?m)^- ([A-Z]+) when (.*)$`), regexp.MustCompile(`(?m)^([A-Z]+): _$`)
	endpoint := judgetest.New(t, func(c judgetest.Call) judgetest.Reply {
		choices, last := words.FindAllStringSubmatch(c.System, -1), tag.FindStringSubmatch(c.System)
		if len(choices) != 2 || last == nil {
			t.Errorf("not a request by the built-in rubric:\n%s", c.System)
			return judgetest.Reply{}
		}
		if strings.Contains(choices[0][2], "in doubt") { // the order is drawn
			slices.Reverse(choices)
		}
		reply := judgetest.Reply{PromptTokens: 100, CompletionTokens: 10}
		switch {
		case strings.Contains(c.User, "Query: good"):
			reply.Text = "It helps.\n" + last[1] + ": " + choices[0][1]
		case strings.Contains(c.User, "Query: bad"):
			reply.Text = "It does not.\n" + last[1] + ": " + choices[1][1]
		default:
			reply.Text = "I would rather not say."
		}
		return reply
	})
	gold := filepath.Join(t.TempDir(), "gold.jsonl")
	rows := `{"task": {"id": "a", "question": "Where?", "answers": ["here"]}, "query": "good one", "passages": [], "label": 1}
{"task": {"id": "a", "question": "Where?", "answers": ["here"]}, "query": "good two", "passages": [], "label": 0}
{"task": {"id": "a", "question": "Where?", "answers": ["here"]}, "query": "bad", "passages": [], "label": 0}
{"task": {"id": "a", "question": "Where?", "answers": ["here"]}, "query": "ugly", "passages": [], "label": 1}
`
	if err := os.WriteFile(gold, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	save := filepath.Join(t.TempDir(), "outcomes.jsonl")
	code, out, stderr := execute("labels", "audit", "--gold", gold, "--judge-url", endpoint.BaseURL(), "--model", "tiny",
		"--rubric", "helpfulness", "--set", "judge.llm.structured_output=off", "--save", save, "--json")
	var reports []audit.Report
	if err := json.Unmarshal([]byte(out), &reports); code != 0 || err != nil || len(reports) != 1 {
		t.Fatalf("exit code %d: %v %s\n%s", code, err, stderr, out)
	}
	r := reports[0]
	if r.Judge != "llm:tiny for helpfulness" || r.Turns != 4 || r.N != 3 || r.Failed != 1 || r.Answers != 5 || r.Unusable != 2 ||
		r.PromptTokens != 500 || r.CompletionTokens != 50 || !reflect.DeepEqual(r.Table, [][]int{{1, 1}, {0, 1}}) {
		t.Errorf("%+v", r)
	}
	if kept, err := audit.ReadGold(save, nil); err != nil || len(kept) != 4 {
		t.Errorf("%d turns were kept, %v", len(kept), err)
	}
	endpoint.Close()
	if code, _, stderr := execute("labels", "audit", "--gold", gold, "--judge-url", endpoint.BaseURL(), "--model", "tiny", "--rubric", "helpfulness", "--set", "judge.llm.retries=0"); code != exitError || !strings.Contains(stderr, "turn ") {
		t.Errorf("a dead endpoint: exit code %d, %s", code, stderr)
	}
}

// TestRunGold finds the gold label of a turn of a run: whether it found a gold
// passage, or what a gold file says of the same step.
func TestRunGold(t *testing.T) {
	_, r, _ := sample()
	passages := []forager.Passage{{ID: "city-tirana", Title: "Tirana", Text: "The capital."}}
	r.Turns[0].ObservationKey = forager.ObservationKey(passages)
	dir := t.TempDir()
	file := filepath.Join(dir, "groups.arrow")
	group := forager.Group{Credit: forager.Credit{Run: r.Run, Index: r.Group, TaskID: r.TaskID, GroupSize: 8}, Rollouts: []forager.Rollout{*r}}
	if err := batch.WriteFile(file, []forager.Group{group}); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := config{Config: node.DefaultConfig()}
	for gold, want := range map[string]float64{"city-tirana": 1, "city-vlore": 0} {
		cfg.Data.Tasks = write("tasks.jsonl", `{"id": "worldfacts-1", "question": "q", "answers": ["x"], "gold": ["`+gold+`"]}`)
		got, err := runGold([]string{file}, cfg, "")
		if err != nil || !reflect.DeepEqual(got, map[turn]float64{{r.ID, 0}: want}) {
			t.Errorf("gold passage %s: %v, %v", gold, got, err)
		}
	}
	path := write("gold.jsonl", `{"task": "worldfacts-1", "query": "City, TIRANA", "passages": [{"id": "city-tirana", "title": "Tirana", "text": "The capital."}], "label": 0.5}
{"task": "worldfacts-1", "query": "city Tirana", "passages": [], "label": 0}`)
	if got, err := runGold([]string{file}, cfg, path); err != nil || !reflect.DeepEqual(got, map[turn]float64{{r.ID, 0}: 0.5}) {
		t.Errorf("gold file: %v, %v", got, err)
	}
}
