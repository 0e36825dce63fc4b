package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/reward"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// words is a tokenizer whose token i is the i-th of its words.
type words []string

func (w words) Decode(ids []int32) string {
	text := ""
	for _, id := range ids {
		text += w[id]
	}
	return text
}

// sample is an episode of one search whose passage tries to move the cursor.
func sample() (words, *forager.Rollout, *forager.Task) {
	vocabulary := words{
		"Question: capital of", " Albania?\n", "<think>", " I look.", "</think>", "<search>", " city\n", "Tirana", "</search>",
		"\n<information>", "Tirana \x1b[2J(city): the capital\nof Albania", "</information>\n", "<answer>", "Tirana", "</answer>",
	}
	r := &forager.Rollout{
		Run: "r", ID: "r-00000007-002", TaskID: "worldfacts-1", Dataset: "worldfacts", Group: 7, Sample: 2, Actor: "host-1",
		Start: time.Unix(1, 0).UTC(), End: time.Unix(2, 0).UTC(),
		Versions: []forager.VersionSpan{{Span: forager.Span{Start: 2, End: 9}, Version: 3}, {Span: forager.Span{Start: 12, End: 15}, Version: 4}},
		Turns: []forager.Turn{
			{Kind: forager.TurnSearch, Text: "city Tirana", Action: forager.Span{Start: 2, End: 9}, Observation: forager.Span{Start: 9, End: 12},
				DocIDs: []string{"city-tirana"}, DocScores: []float64{7.125}},
			{Kind: forager.TurnAnswer, Text: "Tirana", Action: forager.Span{Start: 12, End: 15}},
		},
		Answer: "Tirana", Finish: forager.FinishAnswer, Rewards: map[string]float64{"em": 1, "f1": 1},
	}
	for i := range vocabulary {
		r.Tokens = append(r.Tokens, int32(i))
		inLoss := i >= 2 && i < 9 || i >= 12
		r.LossMask = append(r.LossMask, inLoss)
		r.Logprobs = append(r.Logprobs, 0)
		if inLoss {
			r.Logprobs[i] = -0.25 * float32(i)
		}
	}
	helpful := 1.0
	r.Annotations = []forager.Annotation{
		{RolloutID: r.ID, Turn: 0, Source: "helpful", Value: &helpful, Judge: "rule", Rubric: "1a2b", Rationale: "it holds the answer"},
		{RolloutID: r.ID, Turn: 1, Source: "helpful", Judge: "rule", Rubric: "1a2b"},
		{RolloutID: r.ID, Turn: forager.WholeRollout, Source: "style", Value: &helpful, Judge: "llm", Rubric: "77"},
	}
	return vocabulary, r, &forager.Task{ID: r.TaskID, Question: "capital of Albania?", Answers: []string{"Tirana", "Tiranë"}, Hops: 2}
}

func TestShowGolden(t *testing.T) {
	vocabulary, r, task := sample()
	for name, c := range map[string]struct {
		colour string
		view   view
	}{
		"plain":  {"never", view{}},
		"tokens": {"never", view{tokens: true, logprobs: true}},
		"colour": {"always", view{}},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if c.view.palette, err = newPalette(c.colour, false); err != nil {
				t.Fatal(err)
			}
			c.view.tokenizer, c.view.task = vocabulary, task
			var out bytes.Buffer
			if err := c.view.write(&out, r); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "show-"+name+".txt")
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
			}
			if strings.Contains(out.String(), "\x1b[2J") {
				t.Error("a passage reached the terminal as a control sequence")
			}
		})
	}
}

func TestPalette(t *testing.T) {
	coloured := func(when string, terminal bool) bool {
		p, err := newPalette(when, terminal)
		if err != nil {
			t.Fatal(err)
		}
		return p.good("x") != "x"
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if !coloured("auto", true) || coloured("auto", false) || !coloured("always", false) || coloured("never", true) {
		t.Error("--color is not followed")
	}
	t.Setenv("NO_COLOR", "1")
	if coloured("auto", true) || !coloured("always", true) {
		t.Error("NO_COLOR is not followed")
	}
}

func TestListLine(t *testing.T) {
	_, r, _ := sample()
	config := reward.DefaultConfig()
	config.Weights = map[string]float64{"em": 1, "helpful": 0.5, "cost": -1}
	recipe, err := reward.NewRecipe(config)
	if err != nil {
		t.Fatal(err)
	}
	got := listLine(12, r, 2, recipe)
	want := "12\tr-00000007-002\tworldfacts-1\t2\t1.00\t1.00\t1\tanswer\tv3-v4\t1.500 (without cost)"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Episodes are found by id and index, over several files, with their labels.
func TestPick(t *testing.T) {
	dir := t.TempDir()
	_, r, _ := sample()
	var files []string
	for i := range 3 {
		one := *r
		if i != 1 {
			one.Annotations = nil
		}
		one.Group, one.Sample = uint64(i), 0
		one.ID = forager.RolloutID("r", one.Group, 0)
		file := filepath.Join(dir, "groups-"+one.ID+".arrow")
		files = append(files, file)
		group := forager.Group{Credit: forager.Credit{Run: "r", Index: one.Group, TaskID: one.TaskID, GroupSize: 1}, Rollouts: []forager.Rollout{one}}
		if err := batch.WriteFile(file, []forager.Group{group}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	err := each(files, func(index int, r *forager.Rollout) bool {
		ids = append(ids, r.ID)
		if (len(r.Annotations) > 0) != (index == 1) {
			t.Errorf("%s has %d labels", r.ID, len(r.Annotations))
		}
		return true
	})
	if err != nil || len(ids) != 3 {
		t.Fatalf("found %v, %v", ids, err)
	}
	one := origin{file: files[1]}
	for _, c := range []struct {
		id    string
		index int
		want  string
	}{
		{"", -1, ids[1]},
		{"", 0, ids[1]},
		{ids[1], -1, ids[1]},
	} {
		if got, err := one.pick(c.id, c.index); err != nil || got.ID != c.want {
			t.Errorf("pick(%q, %d): %v, %v", c.id, c.index, got, err)
		}
	}
	for _, c := range []struct {
		id    string
		index int
	}{{"none", -1}, {"", 1}} {
		if _, err := one.pick(c.id, c.index); err == nil {
			t.Errorf("pick(%q, %d) found something", c.id, c.index)
		}
	}
}
