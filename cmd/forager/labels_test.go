package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// someLabels are three labels: one that two turns share, one that failed, and
// one of another source.
func someLabels(t *testing.T) (file string, rows []forager.Annotation) {
	t.Helper()
	one, zero := 1.0, 0.0
	at := func(seconds int) time.Time { return time.Date(2026, 1, 2, 3, 4, seconds, 0, time.UTC) }
	judgement := forager.Judgement{
		Model: "tiny", Endpoint: "http://127.0.0.1:1/v1", PromptDigest: "feed", Answer: "It links them.\nLABEL: \x1b[2JAMBER", PromptTokens: 1200, CompletionTokens: 9,
		TaskID: "q7", Question: "Where is it?", Query: "Vientiane\nriver", Observation: "Doc 1: Vientiane lies on the Mekong.",
	}
	rows = []forager.Annotation{
		{RolloutID: "r-1", Turn: 0, Source: "helpful", Value: &one, Key: "aa01", Judge: "llm:tiny", Rubric: "sha256:beef", Rationale: "It links them.", Latency: time.Second, Time: at(1), Judgement: judgement},
		{RolloutID: "r-2", Turn: 2, Source: "helpful", Value: &one, Key: "aa01", Judge: "llm:tiny", Rubric: "sha256:beef", Time: at(2)},
		{RolloutID: "r-2", Turn: 2, Source: "helpful", Value: &one, Key: "aa01", Judge: "llm:tiny", Rubric: "sha256:beef", Time: at(2)}, // published twice
		{RolloutID: "r-1", Turn: 1, Source: "helpful", Key: "aa02", Judge: "llm:tiny", Rubric: "sha256:beef", Time: at(3), Judgement: forager.Judgement{TaskID: "q8"}},
		{RolloutID: "r-1", Turn: forager.WholeRollout, Source: "plan", Value: &zero, Key: "bb03", Judge: "rule", Rubric: "sha256:cafe", Time: at(4)},
	}
	file = filepath.Join(t.TempDir(), "labels.arrow")
	if err := batch.WriteAnnotations(file, batch.Arrow, rows); err != nil {
		t.Fatal(err)
	}
	return file, rows
}

func TestLabelsList(t *testing.T) {
	file, _ := someLabels(t)
	code, out, stderr := execute("labels", "list", "--file", file)
	want := `time                 key   source   value  judge     task  turns  query
2026-01-02 03:04:04  bb03  plan     0      rule      -     1      -
2026-01-02 03:04:03  aa02  helpful  none   llm:tiny  q8    1      -
2026-01-02 03:04:01  aa01  helpful  1      llm:tiny  q7    2      Vientiane river
`
	if code != 0 || out != want {
		t.Errorf("exit code %d %s, got\n%s", code, stderr, out)
	}
	for args, keys := range map[string]string{
		"--failed":                "aa02",
		"--value 1":               "aa01",
		"--value 0..1":            "bb03 aa01",
		"--source plan":           "bb03",
		"--judge tiny --limit 1":  "aa02",
		"--rubric cafe":           "bb03",
		"--rubric sha256:be":      "aa02 aa01",
		"--task q7":               "aa01",
		"--task q7 --source plan": "",
	} {
		code, out, stderr := execute(append([]string{"labels", "list", "--json", "--file", file}, strings.Fields(args)...)...)
		var list []struct {
			Key   string   `json:"key"`
			Value *float64 `json:"value"`
		}
		if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
			t.Fatalf("%s: exit code %d, %v, %s", args, code, err, stderr)
		}
		var got []string
		for _, l := range list {
			got = append(got, l.Key)
		}
		if strings.Join(got, " ") != keys {
			t.Errorf("%s: got %q, want %q", args, got, keys)
		}
	}
}

func TestLabelsShow(t *testing.T) {
	file, _ := someLabels(t)
	_, out, _ := execute("labels", "show", "aa01", "--file", file)
	want := `label aa01
  value        1
  source       helpful
  judge        llm:tiny
  model        tiny
  endpoint     http://127.0.0.1:1/v1
  rubric       sha256:beef
  prompt       feed
  time         2026-01-02T03:04:01Z
  latency      1s
  tokens       1,200 prompt, 9 answer
  task         q7
  question     Where is it?
  query        Vientiane river
  observation
    Doc 1: Vientiane lies on the Mekong.
  rationale    It links them.
  raw answer
    It links them.
    LABEL: \x1b[2JAMBER
  turns        2
    r-1  turn 1
    r-2  turn 3
`
	if out != want {
		t.Errorf("got\n%s", out)
	}
	_, out, _ = execute("labels", "show", "r-1", "--file", file)
	var order []string
	for line := range strings.Lines(out) {
		if key, ok := strings.CutPrefix(line, "label "); ok {
			order = append(order, strings.TrimSpace(key))
		}
	}
	if !slices.Equal(order, []string{"bb03", "aa01", "aa02"}) {
		t.Errorf("labels of a rollout: %q", order)
	}
	if code, _, stderr := execute("labels", "show", "aa", "--file", file); code != exitUsage || !strings.Contains(stderr, "give more of it") {
		t.Errorf("an ambiguous key: %d %s", code, stderr)
	}
	if code, _, stderr := execute("labels", "show", "zz", "--file", file); code != exitError || !strings.Contains(stderr, "forager labels list") {
		t.Errorf("an unknown key: %d %s", code, stderr)
	}
}

// TestLabelsExport keeps all rows of the labels that are wanted, in order.
func TestLabelsExport(t *testing.T) {
	file, rows := someLabels(t)
	out := filepath.Join(t.TempDir(), "some.arrow")
	code, text, stderr := execute("labels", "export", "--file", file, "--out", out, "--judge", "llm", "--value", "1")
	if code != 0 || !strings.Contains(text, "3 labels") {
		t.Fatalf("exit code %d: %s%s", code, text, stderr)
	}
	if got, err := batch.ReadAnnotations(out); err != nil || !reflect.DeepEqual(got, rows[:3]) {
		t.Errorf("%+v, %v", got, err)
	}
	other := filepath.Join(t.TempDir(), "all.txt")
	if code, _, stderr := execute("labels", "export", "--file", file, "--out", other, "--format", "jsonl"); code != 0 {
		t.Fatal(stderr)
	}
	if data, err := os.ReadFile(other); err != nil || strings.Count(string(data), "\n") != len(rows) {
		t.Errorf("%s, %v", data, err)
	}
}
